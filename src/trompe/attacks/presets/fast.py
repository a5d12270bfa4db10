"""The default: a strong attack in little time."""

from __future__ import annotations

import math
from dataclasses import replace

from trompe.attacks.constraints import LInfBall
from trompe.attacks.presets.base import RELEVANCE, SIGNALS, Preset, innermost, presets
from trompe.attacks.steps import ScaledAdam, Signed
from trompe.explain.base import Method


@presets.register("fast")
def fast(method: Method, height: int) -> Preset:
    """Two hundred small steps in a small ball, each kink of the surrogate smoothed that matters.

    Found by experiment (``benchmarks/README.md``). What helps most is smoothing max pooling, which
    the paper leaves as it is; then that beta begins low, that a change of the image has its price,
    so that each network gets as much of it as it needs, and that the output may stray in the
    beginning and not in the end. A smaller picture has fewer pixels to hide a change in: the ball
    grows as the root of 224 / height, and a gradient's price of a change falls as the square of
    that. For gradients large pictures take small steps: they reach more at a smaller change.

    Gradients and guided backpropagation take Adam's steps, relevance and the deconvnet signed ones.
    For relevance the surrogate leaves activations as they are (``docs/decisions.md``), and for the
    deconvnet, whose cut at an activation has no derivative but the smooth form another map,
    wherever there is pooling. Guided backpropagation has smooth gates and a hard cut there. Maps
    made of outputs alone (occlusion, RISE, LIME, KernelSHAP) are attacked on the network itself.
    """
    name = innermost(method).name
    shrinking = math.sqrt(224 / height)
    common = Preset(
        iterations=200,
        prefactors=(1.0, 5e3),
        output_start=1e-3,
        pooling=3.0,
        relative=True,
    )
    if name in RELEVANCE:
        return replace(
            common,
            prefactors=(1.0, 200.0),
            output_start=5e-3,
            closeness=280.0,
            beta_start=3.0,
            beta_end=100.0,
            activations=False,
            constraint=LInfBall(6 / 255 * shrinking),
            step=Signed(0.05 * (6 / 255 * shrinking)),
        )
    if name == "guided_backprop":
        return replace(
            common,
            closeness=100.0,
            beta_start=5.0,
            beta_end=300.0,
            hard_cut=True,
            constraint=LInfBall(8 / 255 * shrinking),
            step=ScaledAdam(min(0.1, 0.06 * 224 / height) * (8 / 255 * shrinking)),
        )
    if name in SIGNALS:
        return replace(
            common,
            closeness=100.0,
            beta_start=3.0,
            beta_end=200.0,
            activations="without pooling",
            constraint=LInfBall(8 / 255 * shrinking),
            step=Signed(0.03 * (8 / 255 * shrinking)),
        )
    if innermost(method).first_order:  # the outputs' own derivative needs no surrogate
        return replace(
            common,
            closeness=100.0,
            beta_start=None,
            constraint=LInfBall(4 / 255 * shrinking),
            step=ScaledAdam(0.1 * (4 / 255 * shrinking)),
        )
    return replace(
        common,
        output_start=1e-4,
        closeness=3000.0 / shrinking**2,
        beta_start=10.0,
        beta_end=300.0,
        per_layer=True,
        constraint=LInfBall(4 / 255 * shrinking),
        step=ScaledAdam(min(0.1, 0.05 * 224 / height) * (4 / 255 * shrinking)),
    )
