"""Figures 5 and 19 to 23: attacks on explanations that are smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trompe.audit.results import Row
from trompe.engine import frozen
from trompe.geometry import compare_smoothings
from trompe.report.figures import joint_figure
from trompe.report.paper.attacks import methods_of, values_of
from trompe.report.paper.claims import Claim, claim
from trompe.report.paper.context import Context, Redrawn
from trompe.report.run_figures import IMAGES, MAPS, Measure, box_panels, scatter_panels
from trompe.report.smoothing import comparison_panels

EQUAL = "smoothgrad=10-beta=0.8"
"""SmoothGrad of 10 samples, its noise that of beta-smoothing with beta = 0.8 (Theorem 2)."""

MORE_THAN_NOTHING = math.ulp(0.0)
"""The least number above 0: maps are of thousands of pixels, and their MSE is of the order 1e-8."""


def _sampled(context: Context) -> list[Row]:
    """The attack on SmoothGrad of the gradient."""
    return context.run("smoothgrad-equal", methods=("gradient",), smoothings=(EQUAL,)).done


def _paired(
    plain: Sequence[Row],
    smoothed: Sequence[Row],
    measure: Measure,
    what: str,
    *,
    harder_is_less: bool,
) -> tuple[Claim, ...]:
    """Per method: the measure under attack when smoothed, less that when plain, pair by pair."""
    claims = []
    for method, rows in methods_of(smoothed).items():
        before = {row.pair: row.values for row in plain if row.method == method}
        changes = [
            row.values[measure.key] - before[row.pair][measure.key]
            for row in rows
            if row.pair in before and measure.key in row.values and measure.key in before[row.pair]
        ]
        claims.append(
            claim(
                f"{method}: {measure.words}, {what} less plain, pair by pair",
                f"clearly {'lower' if harder_is_less else 'higher'} when smoothed",
                changes,
                low=-math.inf if harder_is_less else MORE_THAN_NOTHING,
                high=-MORE_THAN_NOTHING if harder_is_less else math.inf,
            )
        )
    return tuple(claims)


def figure_5(context: Context) -> Redrawn:
    """Attacking a smoothed explanation against attacking the plain one; what smoothing costs."""
    plain, smoothed, sampled = context.plain.done, context.smoothed.done, _sampled(context)
    panels = [
        scatter_panels([*before, *rows], rows[0].smoothing)[2]
        for before, rows in ((plain, smoothed), (context.gradient.done, sampled))
    ]
    x = context.images(8)
    found = compare_smoothings(
        context.loaded.model,
        x,
        frozen(context.loaded.model)(x).argmax(dim=1),
        method=context.method("gradient"),
        repeats=7,
        seed=context.settings.seed,
    )
    panels.extend(comparison_panels(found))
    ratios = [
        sampling / smoothing
        for sampling, smoothing in zip(
            found.seconds["SmoothGrad 10"], found.seconds["beta-smoothing"], strict=True
        )
    ]
    cost = claim(
        "time of SmoothGrad (10 samples) over beta-smoothing, round by round",
        "5 or more (10 to 50 passes instead of one)",
        ratios,
        low=5,
    )
    by_sigma = dict(zip(found.sigmas, found.agreement, strict=True))
    gained = by_sigma[found.sigma] - found.plain
    alike = claim(
        f"PCC of SmoothGrad's map ({found.samples[-1]} samples, Theorem 2's sigma "
        f"{found.sigma:.2g}) with that of beta = 0.8, less that of the plain map",
        "SmoothGrad with Theorem 2's noise resembles beta-smoothing: above 0",
        gained.tolist(),
        low=1e-9,
    )
    claims = _paired(plain, smoothed, MAPS[2], "beta-smoothed", harder_is_less=True)
    return Redrawn({"": joint_figure(panels, columns=2)}, (*claims, alike, cost))


def _scatter(context: Context, index: int) -> Redrawn:
    """Per image, a measure of the maps: the attack on SmoothGrad against that on the gradient."""
    plain = methods_of(context.gradient.done)["gradient"]
    rows = _sampled(context)
    measure = MAPS[index]
    panel = scatter_panels([*plain, *rows], rows[0].smoothing)[index]
    claims = _paired(plain, rows, measure, EQUAL, harder_is_less=measure.key != "map_target_mse")
    return Redrawn({"": joint_figure([panel])}, claims)


def figure_19(context: Context) -> Redrawn:
    """MSE of the maps to the target, SmoothGrad against the plain gradient."""
    return _scatter(context, 0)


def figure_20(context: Context) -> Redrawn:
    """SSIM of the maps to the target, SmoothGrad against the plain gradient."""
    return _scatter(context, 1)


def figure_21(context: Context) -> Redrawn:
    """PCC of the maps to the target, SmoothGrad against the plain gradient."""
    return _scatter(context, 2)


def figure_22(context: Context) -> Redrawn:
    """Maps under attack, plain and beta-smoothed, all methods."""
    plain, smoothed = context.plain.done, context.smoothed.done
    drawing = joint_figure(box_panels([*plain, *smoothed], MAPS))
    claims = _paired(plain, smoothed, MAPS[2], "beta-smoothed", harder_is_less=True)
    return Redrawn({"": drawing}, claims)


def figure_23(context: Context) -> Redrawn:
    """Images under attack, plain and beta-smoothed, all methods."""
    rows = [*context.plain.done, *context.smoothed.done]
    claims = [
        claim(
            f"{method}, {words}: PCC of the images",
            "0.99 to 1: the attack on smoothed maps is given no larger a change",
            values_of([row for row in some if (row.smoothing is None) == plain], "image_pcc"),
            low=0.99,
            form=".5g",
        )
        for method, some in methods_of(rows).items()
        for words, plain in (("plain", True), ("beta-smoothed", False))
    ]
    return Redrawn({"": joint_figure(box_panels(rows, IMAGES))}, tuple(claims))
