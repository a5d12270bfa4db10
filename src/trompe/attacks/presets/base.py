"""The settings of an attack, by preset and explanation method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from trompe.attacks.constraints import Constraint, ValidImage
from trompe.attacks.objectives import Objective, ReachMap
from trompe.attacks.steps import Adam, Step
from trompe.errors import UsageError
from trompe.explain import explainer
from trompe.explain.base import Method
from trompe.explain.gradient import Gradient
from trompe.registry import Registry


@dataclass(frozen=True)
class Preset:
    """The settings of one attack.

    Args:
        iterations: number of steps.
        constraint: where the image must stay.
        step: how it moves.
        prefactors: c1, the objective's weight, and c2, that of the output's squared error.
        output_start: share of c2 in the first step; it grows geometrically to c2, not reached.
        closeness: weight of the mean squared change of the image, pixel units 0..1.
        beta_start: of the surrogate's softplus in the first step; ``None``: no surrogate, the
            attack runs on the model itself.
        beta_end: to which beta grows; not reached, as in the reference implementation.
        pooling: multiple of beta at which the surrogate's max pooling is smoothed; 0 leaves it.
        activations: whether the surrogate smooths activations too, or pooling alone; or
            ``without pooling``: only in networks where no pooling can be smoothed.
        per_layer: whether beta is measured, in each activation and max pooling of the surrogate, in
            how far its inputs spread (``trompe.engine.spreads``), so that all are smoothed alike:
            it is beta over their standard deviation there.
        hard_cut: whether guided backpropagation on the surrogate cuts its signal by a ReLU, so that
            only its gates are smooth.
        relative: whether the map's error counts as a share of what it was at the start, and the
            output's summed over the classes instead of averaged.

    Raises:
        UsageError: if a setting is out of range.
    """

    iterations: int = 1500
    constraint: Constraint = field(default_factory=ValidImage)
    step: Step = field(default_factory=Adam)
    prefactors: tuple[float, float] = (1e11, 1e6)
    output_start: float = 1.0
    closeness: float = 0.0
    beta_start: float | None = 10.0
    beta_end: float = 100.0
    pooling: float = 0.0
    activations: bool | Literal["without pooling"] = True
    relative: bool = False
    hard_cut: bool = False
    per_layer: bool = False

    def __post_init__(self) -> None:
        betas = (1.0 if self.beta_start is None else self.beta_start, self.beta_end)
        checks = {
            "iterations must be a whole number, at least 0": isinstance(self.iterations, int)
            and self.iterations >= 0,
            "prefactors must not be negative": all(0 <= c < math.inf for c in self.prefactors),
            "output_start must be within 0..1, above 0": 0 < self.output_start <= 1,
            "closeness must not be negative": 0 <= self.closeness < math.inf,
            "beta must be positive and finite": all(0 < b < math.inf for b in betas),
            "pooling must not be negative": 0 <= self.pooling < math.inf,
        }
        for rule, kept in checks.items():
            if not kept:
                raise UsageError(f"{rule}; the settings are {self}")

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that the weights were not made for.

        Raises:
            UsageError: if the weights are those of absolute squared errors of maps, whose size
                depends on the number of pixels, and the objective is no such error.
        """
        if not self.relative and not isinstance(objective, ReachMap) and self.prefactors[0] > 1e3:
            raise UsageError(
                f"these settings weigh squared errors of maps by {self.prefactors[0]:g}, which "
                f"{type(objective).__name__} is not: use the preset fast or thorough"
            )

    def beta(self, iteration: int, iterations: int) -> float | None:
        """Beta at a step: ``b0 (be / b0)^(t / T)`` (Dombrowski et al. 2019)."""
        if self.beta_start is None:
            return None
        growth: float = (self.beta_end / self.beta_start) ** (iteration / iterations)
        return self.beta_start * growth

    def strictness(self, iteration: int, iterations: int) -> float:
        """The share of c2 that counts at a step."""
        share: float = self.output_start ** (1 - iteration / iterations)
        return share


presets: Registry[Callable[[Method, int], Preset]] = Registry("preset", "trompe.attacks.presets")
"""Functions from an explanation method and the image's height to the settings of its attack."""

DEFAULT_PRESET = "fast"
"""Of every attack, in the library and on the command line."""


def preset_for(name: str, method: object = "gradient", height: int = 224) -> Preset:
    """The settings of preset ``name``.

    Args:
        name: of the preset.
        method: the explanation method attacked, a name or an object; for one of your own, the
            settings are those of ``gradient``.
        height: of the images, in pixels.

    Raises:
        UsageError: if there is no such preset.
    """
    if isinstance(method, str):
        method = explainer(method)
    return presets[name](method if isinstance(method, Method) else Gradient(), height)


def innermost(method: Method) -> Method:
    """What a mean or a smoothing is taken of, however often it is wrapped."""
    base = getattr(method, "base", None)
    return innermost(base) if isinstance(base, Method) else method


RELEVANCE = ("lrp", "excitation_backprop")
"""Methods that distribute the score over the inputs, layer by layer."""

SIGNALS = ("guided_backprop", "deconvnet")
"""Methods that cut the backward signal at activations."""
