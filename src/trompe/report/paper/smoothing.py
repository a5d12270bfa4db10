"""Figures 4, 7, 8, 9, 18 and 24: what smoothing does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trompe.engine import frozen
from trompe.errors import TrompeError
from trompe.explain import explainer
from trompe.geometry import Likeness, distance_to_relu, smoothed_maps
from trompe.metrics import pcc
from trompe.report.explanations import explanations_figure
from trompe.report.figures import Curve, Panel, draw_curves, joint_figure
from trompe.report.paper.attacks import methods_of, middle
from trompe.report.paper.context import Claim, Context, Redrawn
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


def figure_4(context: Context) -> Redrawn:
    """Explaining the manipulated image with a smoother network."""
    run = context.plain
    claims = []
    betas = sorted(context.settings.recovery)
    for method, rows in methods_of(run.done).items():
        gaps = [
            middle(rows, f"beta_{beta:g}_original_pcc") - middle(rows, f"beta_{beta:g}_target_pcc")
            for beta in betas
        ]
        claims.append(
            Claim(
                f"{method}: PCC with the original map minus PCC with the target map, by beta",
                "rises as beta is lowered (from large to 0.3 to 1)",
                ", ".join(f"{b:g}: {gap:.2f}" for b, gap in zip(betas, gaps, strict=True)),
                max(gaps[: len(gaps) // 2]) > gaps[-1],
            )
        )
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
    x = context.images(4)
    target = _predicted(context, x)
    found: dict[str, Likeness] = {}
    claims = []
    for method in context.settings.methods:
        try:
            found[method] = distance_to_relu(
                context.loaded.model, x, target, betas=betas, method=context.method(method)
            )
        except TrompeError as error:
            claims.append(Claim(method, "explained", str(error), False))
            continue
        first, last = (float(found[method].pcc[i].median()) for i in (0, -1))
        claims.append(
            Claim(
                f"{method}: PCC to the ReLU map at the smallest and the largest beta, median",
                "approaches 1 as beta grows",
                f"{first:.3f}, {last:.3f}",
                last > 0.95 and last >= first - 1e-6,
            )
        )
    return Redrawn({"": distance_figure(found)}, tuple(claims))


def _strip(context: Context, index: int) -> Redrawn:
    """Maps of one image for falling beta, all methods."""
    x = context.images(index + 1)[-1:]
    target = _predicted(context, x)
    betas = (10.0, 3.0, 2.0, 1.0)
    maps, claims = {}, []
    for method in context.settings.methods:
        try:
            some = _maps(context, method, x, target, (None, *betas))
        except TrompeError as error:
            claims.append(Claim(method, "explained", str(error), False))
            continue
        maps[method] = list(some[:, 0])
        near, far = (float(pcc(some[0], one)) for one in (some[1], some[-1]))
        claims.append(
            Claim(
                f"{method}: PCC to the ReLU map at beta = 10 and 1",
                "similar at 10, smoother and further away at 1",
                f"{near:.3f}, {far:.3f}",
                near >= far - 0.02,
            )
        )
    pixels = context.loaded.input_space.to_pixels(x.cpu())[0]
    title = context.loaded.label(int(target[0]))
    return Redrawn({"": explanations_figure(pixels, maps, betas, title=title)}, tuple(claims))


def figure_8(context: Context) -> Redrawn:
    """One image, beta falling."""
    return _strip(context, 0)


def figure_9(context: Context) -> Redrawn:
    """Another image, beta falling."""
    return _strip(context, 1)


def figure_18(context: Context) -> Redrawn:
    """SmoothGrad maps of the manipulated image against the noise level."""
    run = context.plain
    rows = [row for row in run.done if row.method == "gradient"][:8]
    levels = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    found: dict[str, list[list[float]]] = {"original map": [], "target map": []}
    model = frozen(context.loaded.model)
    for row in rows:
        arrays = run.arrays(row)
        x = arrays["x_adv"].to(context.device)
        target = arrays["logits_original"].argmax(dim=1).to(context.device)
        values: dict[str, list[float]] = {name: [] for name in found}
        for level in levels:
            with torch.no_grad():
                heat = heatmap(
                    explainer("smoothgrad", samples=10, noise=level)(model, x, target)
                ).cpu()
            values["original map"].append(float(pcc(heat, arrays["map_original"])))
            values["target map"].append(float(pcc(heat, arrays["map_target"])))
        for name, some in values.items():
            found[name].append(some)
    curves = {name: Curve(levels, some) for name, some in found.items()}
    draw = partial(
        draw_curves, curves=curves, across="noise level", up="PCC of the map", log_across=True
    )
    gap = [
        float(np.median([o[i] - t[i] for o, t in zip(*found.values(), strict=True)]))
        for i in range(len(levels))
    ]
    claim = Claim(
        "PCC with the original map minus PCC with the target map, by noise level",
        "rises with some noise",
        ", ".join(f"{level:g}: {value:.2f}" for level, value in zip(levels, gap, strict=True)),
        max(gap[1:]) > gap[0],
    )
    return Redrawn({"": joint_figure([Panel("SmoothGrad, 10 samples", "", draw)])}, (claim,))


def figure_24(context: Context) -> Redrawn:
    """Contour lines of a small network, ReLU and ever smoother softplus."""
    generator = torch.Generator().manual_seed(context.settings.seed)
    first = 2 * torch.rand(2, 50, generator=generator) - 1
    second = 2 * torch.rand(50, generator=generator) - 1
    side = torch.linspace(-1, 1, 201)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1) @ first
    fields = {"ReLU": torch.relu(grid) @ second}
    for beta in (20.0, 5.0, 2.0, 0.8):
        fields[f"softplus, β = {beta:g}"] = torch.nn.functional.softplus(grid, beta=beta) @ second
    bends = {name: _bending(field, side) for name, field in fields.items()}
    claim = Claim(
        "mean curvature of the contour lines",
        "falls with beta",
        ", ".join(f"{name}: {value:.2f}" for name, value in bends.items()),
        bends["softplus, β = 0.8"] < bends["softplus, β = 20"],
    )
    made_with = f"a random network with 50 hidden units, seed {context.settings.seed}"
    return Redrawn({"": _contours(fields, side)}, (claim,), made_with)


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
