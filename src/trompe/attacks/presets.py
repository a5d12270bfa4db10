"""The settings of an attack, by preset and explanation method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.explain.gradient import Gradient
from trompe.registry import Registry


@dataclass(frozen=True)
class Preset:
    """The settings of one attack.

    Args:
        iterations: number of steps.
        learning_rate: of Adam, in normalised units.
        prefactors: c1 of the map's and c2 of the output's squared error.
        beta_start: of the surrogate's softplus in the first step; ``None``: no surrogate, the
            attack runs on the model itself.
        beta_end: to which beta grows; not reached, as in the reference implementation.
        pooling: multiple of beta at which the surrogate's max pooling is smoothed; 0 leaves it.
        activations: whether the surrogate smooths activations; without, pooling alone.
        relative: whether the map's error counts as a share of what it was at the start.
        radius: ``None`` for Adam, as the paper; a number for signed momentum steps within a ball of
            this radius in the maximum norm, pixel units 0..1.
        step: size of the first signed step, as a share of the radius.
        momentum: of the signed steps.

    Raises:
        UsageError: if a setting is out of range.
    """

    iterations: int = 1500
    learning_rate: float = 1e-3
    prefactors: tuple[float, float] = (1e11, 1e6)
    beta_start: float | None = 10.0
    beta_end: float = 100.0
    pooling: float = 0.0
    activations: bool = True
    relative: bool = False
    radius: float | None = None
    step: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        betas = (1.0 if self.beta_start is None else self.beta_start, self.beta_end)
        checks = {
            "iterations must be at least 0": self.iterations >= 0,
            "learning_rate must be positive": 0 < self.learning_rate < math.inf,
            "prefactors must not be negative": all(0 <= c < math.inf for c in self.prefactors),
            "beta must be positive and finite": all(0 < b < math.inf for b in betas),
            "pooling must not be negative": 0 <= self.pooling < math.inf,
            "radius must be positive": self.radius is None or 0 < self.radius < math.inf,
            "step must be positive": 0 < self.step < math.inf,
            "momentum must be within 0..1": 0 <= self.momentum <= 1,
        }
        for rule, kept in checks.items():
            if not kept:
                raise UsageError(f"{rule}; the settings are {self}")

    def beta(self, iteration: int, iterations: int) -> float | None:
        """Beta at a step: ``b0 (be / b0)^(t / T)`` (PAPER.md, section 1)."""
        if self.beta_start is None:
            return None
        growth: float = (self.beta_end / self.beta_start) ** (iteration / iterations)
        return self.beta_start * growth


presets: Registry[Callable[[Method, int], Preset]] = Registry("preset", "trompe.attacks")
"""Functions from an explanation method and the image's height to the settings of its attack."""

_PAPER = {
    "integrated_grad": Preset(iterations=500, learning_rate=5e-3),
    "lrp": Preset(learning_rate=2e-4, beta_start=None),
    "pattern_attribution": Preset(learning_rate=2e-3),
}
_PAPER_SMOOTHGRAD = {
    "gradient": Preset(learning_rate=3e-3),
    "lrp": Preset(learning_rate=3e-4, beta_start=None),
}
_PAPER_BETA_SMOOTHING = {
    "gradient": Preset(iterations=500, learning_rate=2.5e-4, beta_start=None),
    "grad_times_input": Preset(iterations=500, learning_rate=2.5e-4, beta_start=None),
    "integrated_grad": Preset(iterations=200, learning_rate=2.5e-3, beta_start=None),
    "lrp": Preset(iterations=1500, learning_rate=2e-4, beta_start=None),
    "guided_backprop": Preset(iterations=500, learning_rate=5e-4, beta_start=None),
    "pattern_attribution": Preset(iterations=500, learning_rate=5e-4, beta_start=None),
}


@presets.register("paper")
def paper(method: Method, height: int) -> Preset:
    """The paper's settings (PAPER.md, section 3); those of ``gradient`` for other methods."""
    base = getattr(method, "base", None)
    if method.name == "smoothgrad" and base is not None:
        return _PAPER_SMOOTHGRAD.get(base.name, _PAPER_SMOOTHGRAD["gradient"])
    if method.name == "beta_smoothing" and base is not None:
        return _PAPER_BETA_SMOOTHING.get(base.name, _PAPER_BETA_SMOOTHING["gradient"])
    return _PAPER.get(method.name, Preset())


@presets.register("fast")
def fast(method: Method, height: int) -> Preset:
    """Two hundred signed steps in a small ball, every kink of the surrogate smoothed.

    Found by experiment (``benchmarks/README.md``). Smoothing max pooling too is what helps most:
    the paper leaves it as it is. Guided backpropagation hardly moves this way and keeps the paper's
    settings. A smaller picture has fewer pixels to hide a change in: the ball
    has a radius of 2.5/255 at 224 pixels, 4.7/255 at 64; twice that for LRP, whose maps move less.
    Large pictures take small steps: they reach more at a smaller change. For LRP activations stay
    as they are (``docs/decisions.md``).
    """
    if method.name == "guided_backprop":
        return paper(method, height)
    relevance = method.name == "lrp"
    return Preset(
        iterations=200,
        prefactors=(1.0, 1e4),
        beta_start=10.0,
        beta_end=100.0,
        pooling=3.0,
        activations=not relevance,
        relative=True,
        radius=(2 if relevance else 1) * 2.5 / 255 * math.sqrt(224 / height),
        step=0.05 if relevance else min(0.05, 0.02 * 224 / height),
    )


def preset_for(name: str, method: object, height: int) -> Preset:
    """The settings of preset ``name``.

    Args:
        name: of the preset.
        method: the explanation method attacked; for one of your own, those of ``gradient``.
        height: of the images, in pixels.

    Raises:
        UsageError: if there is no such preset.
    """
    return presets[name](method if isinstance(method, Method) else Gradient(), height)
