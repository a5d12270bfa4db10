"""Figures 4, 7, 8, 9, 18 and 24: what smoothing does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trompe.audit.results import Row
from trompe.engine import frozen
from trompe.errors import TrompeError
from trompe.explain import explainer
from trompe.geometry import Likeness, distance_to_relu, smoothed_maps
from trompe.metrics import pcc
from trompe.report.explanations import explanations_figure
from trompe.report.figures import Curve, Panel, draw_curves, joint_figure
from trompe.report.paper.attacks import methods_of
from trompe.report.paper.claims import claim, failed
from trompe.report.paper.context import Context, Redrawn
from trompe.report.run_figures import recovery_panels
from trompe.report.smoothing import distance_figure
from trompe.report.style import FONT, axes_at, new_figure, panel
from trompe.types import heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _maps(
    context: Context, name: str, x: Tensor, target: Tensor, betas: tuple[float | None, ...]
) -> Tensor:
    """Heat maps of a method, [betas, B, H, W] on the CPU."""
    method = context.method(name)
    return smoothed_maps(context.loaded.model, x, target, betas=betas, method=method).cpu()


def _predicted(context: Context, x: Tensor) -> Tensor:
    with torch.no_grad():
        return frozen(context.loaded.model)(x).argmax(dim=1)


def _listed(betas: Sequence[float]) -> str:
    return ", ".join(f"{beta:g}" for beta in betas)


def _recovered(rows: Sequence[Row], betas: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Per cell and beta: PCC with the original map and with the target map."""
    found = []
    for row in rows:
        keys = [(f"beta_{b:g}_original_pcc", f"beta_{b:g}_target_pcc") for b in betas]
        if all(key in row.values for pair in keys for key in pair):
            found.append([(row.values[one], row.values[other]) for one, other in keys])
    return found


def _rise(values: Sequence[float]) -> float:
    """The best of the lower half of the betas, less the value at the largest."""
    return max(values[: len(values) // 2]) - values[-1]


def figure_4(context: Context) -> Redrawn:
    """Explaining the manipulated image with a smoother network."""
    run = context.plain
    betas = sorted(context.settings.recovery)
    lowered = f"(best of {_listed(betas[: len(betas) // 2])}, less {betas[-1]:g})"
    paper = "rises as beta is lowered (from large to 0.3 to 1): above 0"
    claims = []
    for method, rows in methods_of(run.done).items():
        found = _recovered(rows, betas)
        for what, rises in (
            (
                "how much more the map is like the original than the target when beta is lowered",
                [_rise([original - target for original, target in cell]) for cell in found],
            ),
            (  # of itself: the first rises too where smoothing destroys both
                "PCC with the original map when beta is lowered",
                [_rise([original for original, _ in cell]) for cell in found],
            ),
        ):
            claims.append(claim(f"{method}: {what} {lowered}", paper, rises, low=1e-9, form=".2f"))
    row = run.done[0]
    arrays = run.arrays(row)
    space = context.loaded.input_space
    strips = {}
    for words, key in (("original image", "x"), ("manipulated image", "x_adv")):
        x = arrays[key].to(context.device)
        target = arrays["logits_original"].argmax(dim=1).to(context.device)
        strips[words] = list(_maps(context, row.method, x, target, (None, 5.0, 0.8))[:, 0])
    pixels = space.to_pixels(torch.cat([arrays["x"], arrays["x_adv"]]))
    title = row.method.replace("_", " ")
    panels = recovery_panels(run.done, context.settings.recovery)
    return Redrawn(
        {
            "": joint_figure(panels),
            "strips": explanations_figure(pixels, strips, (5.0, 0.8), title=title),
        },
        tuple(claims),
    )


def figure_7(context: Context) -> Redrawn:
    """How far softplus maps are from the ReLU map."""
    betas = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    x = context.images(8)
    target = _predicted(context, x)
    found: dict[str, Likeness] = {}
    claims = []
    for method in context.settings.methods:
        what = f"{method}: PCC to the ReLU map at beta = {betas[-1]:g}"
        paper = "approaches 1 as beta grows: above 0.95"
        try:
            found[method] = distance_to_relu(
                context.loaded.model, x, target, betas=betas, method=context.method(method)
            )
        except TrompeError as error:
            claims.append(failed(what, paper, error))
            continue
        claims.append(claim(what, paper, found[method].pcc[-1].tolist(), low=0.95))
    return Redrawn({"": distance_figure(found)}, tuple(claims))


def _strip(context: Context, index: int) -> Redrawn:
    """Maps of one image for falling beta, all methods; the numbers are of several images."""
    x = context.images(8)
    shown = min(index, len(x) - 1)
    target = _predicted(context, x)
    betas = (10.0, 3.0, 2.0, 1.0)
    maps, claims = {}, []
    for method in context.settings.methods:
        what = f"{method}: PCC to the ReLU map at beta = 10, less that at 1"
        paper = "similar at 10, smoother and further away at 1: above 0"
        try:
            some = _maps(context, method, x, target, (None, *betas))
        except TrompeError as error:
            claims.append(failed(what, paper, error))
            continue
        maps[method] = list(some[:, shown])
        fallen = pcc(some[0], some[1]) - pcc(some[0], some[-1])
        claims.append(claim(what, paper, fallen.tolist(), low=1e-9))
    pixels = context.loaded.input_space.to_pixels(x.cpu())[shown]
    title = context.loaded.label(int(target[shown]))
    return Redrawn({"": explanations_figure(pixels, maps, betas, title=title)}, tuple(claims))


def figure_8(context: Context) -> Redrawn:
    """One image, beta falling."""
    return _strip(context, 0)


def figure_9(context: Context) -> Redrawn:
    """Another image, beta falling."""
    return _strip(context, 1)


def figure_18(context: Context) -> Redrawn:
    """SmoothGrad maps of the manipulated image against the noise level."""
    run = context.gradient
    rows = methods_of(run.done)["gradient"][:8]
    levels = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    found: dict[str, list[list[float]]] = {"original map": [], "target map": []}
    rises: dict[str, list[float]] = {"gap": [], "original": []}
    model = frozen(context.loaded.model)
    for row in rows:
        arrays = run.arrays(row)
        x = arrays["x_adv"].to(context.device)
        target = arrays["logits_original"].argmax(dim=1).to(context.device)
        heats = [arrays["map_adv"]]  # without noise, then with each level of it
        for level in levels:
            with torch.no_grad():
                smoothed = explainer("smoothgrad", samples=10, noise=level)(model, x, target)
            heats.append(heatmap(smoothed).cpu())
        original, aim = (
            [float(pcc(heat, arrays[key])) for heat in heats]
            for key in ("map_original", "map_target")
        )
        found["original map"].append(original[1:])
        found["target map"].append(aim[1:])
        gaps = [one - other for one, other in zip(original, aim, strict=True)]
        rises["gap"].append(max(gaps[1:]) - gaps[0])
        rises["original"].append(max(original[1:]) - original[0])
    curves = {name: Curve(levels, some) for name, some in found.items()}
    draw = partial(
        draw_curves, curves=curves, across="noise level", up="PCC of the map", log_across=True
    )
    claims = tuple(
        claim(
            f"{what} with noise (best of {_listed(levels)}, less without)",
            "rises with some noise: above 0",
            rises[key],
            low=1e-9,
            form=".2f",
        )
        for key, what in (
            ("gap", "how much more the map is like the original than the target"),
            ("original", "PCC with the original map"),
        )
    )
    return Redrawn({"": joint_figure([Panel("SmoothGrad, 10 samples", "", draw)])}, claims)


def figure_24(context: Context) -> Redrawn:
    """Contour lines of a small network, ReLU and ever smoother softplus; numbers of twenty."""
    side = torch.linspace(-1, 1, 201)
    seeds = range(context.settings.seed, context.settings.seed + 20)
    found = [_fields(seed, side) for seed in seeds]
    steep, smooth = "softplus, β = 20", "softplus, β = 0.8"
    made = claim(
        "mean curvature of the contour lines, at beta = 0.8 over that at 20",
        "falls with beta: below 1",
        [_bending(fields[smooth], side) / _bending(fields[steep], side) for fields in found],
        high=1 - 1e-9,
    )
    made_with = (
        f"random networks with 50 hidden units, seeds {seeds[0]} to {seeds[-1]}; the first is drawn"
    )
    return Redrawn({"": _contours(found[0], side)}, (made,), made_with)


def _fields(seed: int, side: Tensor) -> dict[str, Tensor]:
    """The output of a random network on the square, by activation."""
    generator = torch.Generator().manual_seed(seed)
    first = 2 * torch.rand(2, 50, generator=generator) - 1
    second = 2 * torch.rand(50, generator=generator) - 1
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1) @ first
    fields = {"ReLU": torch.relu(grid) @ second}
    for beta in (20.0, 5.0, 2.0, 0.8):
        fields[f"softplus, β = {beta:g}"] = torch.nn.functional.softplus(grid, beta=beta) @ second
    return fields


def _bending(field: Tensor, side: Tensor) -> float:
    """Mean absolute curvature of the contour lines (finite differences)."""
    step = float(side[1] - side[0])
    down, across = torch.gradient(field, spacing=step)
    size = torch.sqrt(down**2 + across**2).clamp_min(1e-9)
    curvature = (
        torch.gradient(down / size, spacing=step, dim=0)[0]
        + torch.gradient(across / size, spacing=step, dim=1)[0]
    )
    return float(curvature[2:-2, 2:-2].abs().mean())


def _contours(fields: dict[str, Tensor], side: Tensor) -> Figure:
    figure = new_figure(len(fields) * 2.1 + 0.1, 2.4)
    for number, (name, field) in enumerate(fields.items()):
        axes = axes_at(figure, 0.1 + number * 2.1, 0.3, 2.0, 2.0)
        axes.contour(side, side, field.numpy(), levels=16, cmap="viridis", linewidths=0.9)
        panel(axes, name)
        axes.title.set_fontsize(FONT)
    return figure
