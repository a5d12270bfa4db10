"""Figures 1, 2, 3, 5, 6, 12 and 22: what the attack does."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from trompe.attacks import manipulate, preset_for
from trompe.audit.results import Row
from trompe.engine import frozen
from trompe.errors import TargetError, TrompeError
from trompe.geometry import compare_smoothings
from trompe.metrics import mse, pcc
from trompe.report.figures import Curve, Panel, draw_curves, joint_figure
from trompe.report.paper.context import Claim, Context, Redrawn
from trompe.report.paper.strips import Column, strips
from trompe.report.run_figures import IMAGES, MAPS, box_panels, scatter_panels
from trompe.report.smoothing import comparison_panels
from trompe.report.words import median
from trompe.types import heatmap
from trompe.zoo.targets import text_map

#: The first that can be read in the map is the target.
TEXTS = ("this explanation was manipulated", "fooled", "X")

#: How much nearer to a text (PCC) a map must come for the text to be read in it.
READABLE = 0.2


def middle(rows: Sequence[Row], key: str) -> float:
    """The median of a metric; NaN if no cell has it."""
    value = median(rows, key)
    return float("nan") if value is None else value


def methods_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Cells by method."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _nearer(rows: Sequence[Row]) -> list[Claim]:
    """Per method: the map is nearer to the target than before."""
    return [
        Claim(
            f"{method}: PCC of manipulated and target map, median",
            "0.75 to 0.98; the original map before the attack is far from it",
            f"{middle(some, 'map_target_pcc'):.3f}, before {middle(some, 'map_start_pcc'):.3f}",
            middle(some, "map_target_pcc") >= max(0.75, middle(some, "map_start_pcc") + 0.05),
        )
        for method, some in methods_of(rows).items()
    ]


def figure_1(context: Context) -> Redrawn:
    """One image, one target image, six methods."""
    run = context.plain
    pair = run.done[0].pair
    rows = [row for row in run.done if row.pair == pair]
    columns = []
    for row in rows:
        arrays = {key: value[0] for key, value in run.arrays(row).items()}
        columns.append(
            Column(
                row.method,
                original=arrays["map_original"],
                target=arrays["map_target"],
                manipulated=arrays["map_adv"],
                x_adv=arrays["x_adv"],
            )
        )
    arrays = run.arrays(rows[0])
    space = context.loaded.input_space
    drawing = strips(columns, arrays["x"][0], space, target=arrays["target_x"][0])
    return Redrawn({"": drawing}, tuple(_nearer(rows)))


def _text_target(size: int) -> Tensor:
    for text in TEXTS[:-1]:
        with contextlib.suppress(TargetError):
            return text_map(text, size, size)
    return text_map(TEXTS[-1], size, size)


def figure_2(context: Context) -> Redrawn:
    """One image, a text as the target, six methods."""
    x = context.images(1)
    aim = _text_target(context.loaded.size)
    columns, claims = [], []
    for name in context.settings.methods:
        try:
            result = manipulate(
                context.loaded.model,
                x,
                aim,
                explainer=context.method(name),
                input_space=context.loaded.input_space,
                preset=context.settings.presets[0],
                iterations=context.settings.iterations,
            )
        except TrompeError as error:
            claims.append(Claim(name, "manipulated", str(error), False))
            continue
        columns.append(
            Column(
                name,
                result.map_original[0],
                result.aim[0],
                result.map_adv[0],
                result.x_adv[0],
            )
        )
        before = float(pcc(result.map_original, result.aim))
        after = float(pcc(result.map_adv, result.aim))
        kept = bool(result.class_kept)
        claims.append(
            Claim(
                f"{name}: PCC of manipulated map and text",
                "the text can be read in the map, the class is kept",
                f"{after:.3f}, before {before:.3f}, class {'kept' if kept else 'changed'}",
                kept and after > before + READABLE,
            )
        )
    drawing = strips(columns, x[0].cpu(), context.loaded.input_space)
    return Redrawn({"": drawing}, tuple(claims))


def _similar(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """What figure 3 reports, per method."""
    claims = []
    for method, some in methods_of(rows).items():
        for key, words, low, high in (
            ("map_target_ssim", "SSIM of manipulated and target map", 0.7, 0.95),
            ("map_target_pcc", "PCC of manipulated and target map", 0.75, 0.98),
            ("image_ssim", "SSIM of the images", 0.9, 1.0),
            ("image_pcc", "PCC of the images", 0.99, 1.0),
            ("image_mse", "MSE of the images", 0.0, 1e-3),
        ):
            value = middle(some, key)
            # Nearer to the target than in the paper is no disagreement.
            holds = value <= high if key == "image_mse" else value >= low
            claims.append(
                Claim(f"{method}: {words}, median", f"{low:g} to {high:g}", f"{value:.4g}", holds)
            )
    return tuple(claims)


def figure_3(context: Context) -> Redrawn:
    """Similarity of maps and of images over many pairs."""
    rows = context.plain.done
    drawing = joint_figure([*box_panels(rows, MAPS), *box_panels(rows, IMAGES)])
    return Redrawn({"": drawing}, _similar(rows))


def figure_12(context: Context) -> Redrawn:
    """The same for another network."""
    run = context.run("second", models=(context.scale.second,), methods=("gradient",))
    drawing = joint_figure([*box_panels(run.done, MAPS), *box_panels(run.done, IMAGES)])
    made_with = context.caption.replace(context.settings.models[0].key, context.scale.second.key, 1)
    return Redrawn({"": drawing}, _similar(run.done), made_with)


def _smoother(context: Context) -> tuple[Claim, ...]:
    plain, smoothed = methods_of(context.plain.done), methods_of(context.smoothed.done)
    return tuple(
        Claim(
            f"{method}: PCC to the target, plain and beta-smoothed",
            "clearly lower when smoothed",
            f"{middle(plain[method], 'map_target_pcc'):.3f}, "
            f"{middle(smoothed[method], 'map_target_pcc'):.3f}",
            middle(smoothed[method], "map_target_pcc") < middle(plain[method], "map_target_pcc"),
        )
        for method in plain
        if method in smoothed
    )


def figure_5(context: Context) -> Redrawn:
    """Attacking a smoothed explanation against attacking the plain one; what smoothing costs."""
    plain, smoothed = context.plain.done, context.smoothed.done
    equal = ("smoothgrad=10-beta=0.8",)
    sampled = context.run("smoothgrad-equal", methods=("gradient",), smoothings=equal).done
    panels = [scatter_panels([*plain, *rows], rows[0].smoothing)[2] for rows in (smoothed, sampled)]
    x = context.images(2)
    found = compare_smoothings(
        context.loaded.model,
        x,
        frozen(context.loaded.model)(x).argmax(dim=1),
        method=context.method("gradient"),
        repeats=3,
        seed=context.settings.seed,
    )
    panels.extend(comparison_panels(found))
    seconds = found.median_seconds
    ratio = seconds["SmoothGrad 10"] / seconds["beta-smoothing"]
    cost = Claim(
        "time of SmoothGrad (10 samples) over beta-smoothing",
        "5 or more (10 to 50 passes instead of one)",
        f"{ratio:.1f}",
        ratio >= 5,
    )
    by_sigma = dict(
        zip(found.sigmas, found.agreement.nanquantile(0.5, dim=1).tolist(), strict=True)
    )
    still = float(found.plain.nanquantile(0.5))
    alike = Claim(
        f"PCC of SmoothGrad's map ({found.samples[-1]} samples) with that of beta = 0.8",
        "SmoothGrad with Theorem 2's noise resembles beta-smoothing",
        f"{by_sigma[found.sigma]:.2f} with its sigma, {found.sigma:.2g}; "
        f"{by_sigma[found.closest]:.2f} with {found.closest:.2g}; {still:.2f} without noise",
        by_sigma[found.sigma] > still,
    )
    claims = (*_smoother(context), alike, cost)
    return Redrawn({"": joint_figure(panels, columns=2)}, claims)


def figure_22(context: Context) -> Redrawn:
    """Plain against beta-smoothed explanations under attack, all methods."""
    rows = [*context.plain.done, *context.smoothed.done]
    panels = [*box_panels(rows, MAPS), *box_panels(rows, IMAGES)]
    return Redrawn({"": joint_figure(panels)}, _smoother(context))


def figure_6(context: Context) -> Redrawn:
    """The attack with a fixed beta and with a growing one."""
    x = context.images(min(4, context.settings.pairs))
    model, explainer = frozen(context.loaded.model), context.method("gradient")
    maps = heatmap(explainer(model, x, model(x).argmax(dim=1))).detach()
    aim = maps.roll(1, dims=0) if len(x) > 1 else maps.flip(-1)
    growths = {"β = 10": (10, 10), "β = 100": (100, 100), "β = 1000": (1000, 1000)}
    curves: dict[str, dict[str, Curve]] = {"image_mse": {}, "map_mse": {}}
    final: dict[str, float] = {}
    settings = preset_for(context.settings.presets[0], explainer, x.shape[-2])
    for name, growth in {**growths, "growing, 10 to 100": (10, 100)}.items():
        result = manipulate(
            context.loaded.model,
            x,
            aim,
            explainer=explainer,
            input_space=context.loaded.input_space,
            preset=replace(settings, beta_start=float(growth[0]), beta_end=float(growth[1])),
            iterations=context.settings.iterations,
        )
        final[name] = float(mse(result.map_adv, result.aim).median())
        for key, some in curves.items():
            column = result.history[key]
            some[name] = Curve(list(range(1, len(column))), column[1:].T.tolist())
    panels = [
        Panel(
            words,
            "",
            partial(draw_curves, curves=curves[key], across="iteration", up=words, log_up=True),
        )
        for key, words in (("image_mse", "MSE of the images"), ("map_mse", "MSE of the maps"))
    ]
    best = min(final, key=lambda name: final[name])
    claim = Claim(
        "final MSE to the target of the original network's map",
        "lowest, or nearly, with growing beta",
        "; ".join(f"{name}: {value:.3g}" for name, value in final.items()),
        final["growing, 10 to 100"] <= 1.1 * final[best],
    )
    return Redrawn({"": joint_figure(panels, columns=2)}, (claim,))
