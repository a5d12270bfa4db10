"""Figures 1, 2, 3 and 6: what the attack does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from trompe.attacks import manipulate, preset_for
from trompe.audit.results import Row
from trompe.engine import frozen
from trompe.errors import TargetError, TrompeError
from trompe.interruption import whole
from trompe.metrics import mse, pcc
from trompe.report.figures import Curve, Panel, draw_curves, joint_figure
from trompe.report.paper.claims import Claim, claim, failed
from trompe.report.paper.context import Context, Redrawn
from trompe.report.paper.strips import Column, strips
from trompe.report.run_figures import IMAGES, MAPS, box_panels
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


def values_of(rows: Sequence[Row], key: str) -> list[float]:
    """A metric of all cells that have it."""
    return [row.values[key] for row in rows if key in row.values]


def methods_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Cells by method."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def nearer(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Per method: the map is near to the target, and was not before."""
    claims = []
    for method, some in methods_of(rows).items():
        before = middle(some, "map_start_pcc")
        claims.append(
            claim(
                f"{method}: PCC of manipulated and target map, {before:.2g} before the attack",
                "0.75 to 0.98; the original map is far from the target",
                values_of(some, "map_target_pcc"),
                low=max(0.75, before + 0.05),
            )
        )
    return tuple(claims)


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
    return Redrawn({"": drawing}, nearer(run.done))


def _text_target(size: int) -> Tensor:
    for text in TEXTS[:-1]:
        with contextlib.suppress(TargetError):
            return text_map(text, size, size)
    return text_map(TEXTS[-1], size, size)


def figure_2(context: Context) -> Redrawn:
    """One image, a text as the target, six methods; the numbers are of several images."""
    x = context.images(6)
    aim = _text_target(context.loaded.size)
    columns, claims = [], []
    for name in context.settings.methods:
        what = f"{name}: PCC of manipulated map and text, more than before the attack"
        paper = "the text can be read in the map, the class is kept"
        try:
            result = whole(
                manipulate(
                    context.loaded.model,
                    x,
                    aim,
                    explainer=context.method(name),
                    input_space=context.loaded.input_space,
                    preset=context.settings.presets[0],
                    iterations=context.settings.iterations,
                )
            )
        except TrompeError as error:
            claims.append(failed(what, paper, error))
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
        gained = pcc(result.map_adv, result.aim) - pcc(result.map_original, result.aim)
        kept = result.class_kept  # a map got by another answer is no success
        claims.append(
            claim(what, paper, torch.where(kept, gained, 0.0).tolist(), low=READABLE, form=".3f")
        )
    drawing = strips(columns, x[0].cpu(), context.loaded.input_space)
    return Redrawn({"": drawing}, tuple(claims))


def similar(rows: Sequence[Row]) -> tuple[Claim, ...]:
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
            what, paper = f"{method}: {words}", f"{low:g} to {high:g}"
            # Nearer to the target than in the paper, or less changed, is no disagreement.
            least, most = (-math.inf, high) if key == "image_mse" else (low, math.inf)
            claims.append(claim(what, paper, values_of(some, key), low=least, high=most))
    return tuple(claims)


def figure_3(context: Context) -> Redrawn:
    """Similarity of maps and of images over many pairs."""
    rows = context.plain.done
    drawing = joint_figure([*box_panels(rows, MAPS), *box_panels(rows, IMAGES)])
    return Redrawn({"": drawing}, similar(rows))


def figure_6(context: Context) -> Redrawn:
    """The attack with a fixed beta and with a growing one."""
    x = context.images(8)
    model, explainer = frozen(context.loaded.model), context.method("gradient")
    maps = heatmap(explainer(model, x, model(x).argmax(dim=1))).detach()
    aim = maps.roll(1, dims=0) if len(x) > 1 else maps.flip(-1)
    growths = {"β = 10": (10, 10), "β = 100": (100, 100), "β = 1000": (1000, 1000)}
    curves: dict[str, dict[str, Curve]] = {"image_mse": {}, "map_mse": {}}
    final: dict[str, Tensor] = {}
    settings = preset_for(context.settings.presets[0], explainer, x.shape[-2])
    for name, growth in {**growths, "growing, 10 to 100": (10, 100)}.items():
        result = whole(
            manipulate(
                context.loaded.model,
                x,
                aim,
                explainer=explainer,
                input_space=context.loaded.input_space,
                preset=replace(
                    settings,
                    beta_start=float(growth[0]),
                    beta_end=float(growth[1]),
                    per_layer=False,  # the paper's beta, the same in all layers
                ),
                iterations=context.settings.iterations,
            )
        )
        final[name] = mse(result.map_adv, result.aim)
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
    growing = final.pop("growing, 10 to 100")
    best = torch.stack(list(final.values())).amin(dim=0)
    made = claim(
        "final MSE to the target, with growing beta over the least with a fixed one",
        "lowest, or nearly, with growing beta: at most 1.1",
        (growing / best).tolist(),
        high=1.1,
    )
    return Redrawn({"": joint_figure(panels, columns=2)}, (made,))
