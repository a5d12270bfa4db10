"""The settings of an attack, by preset and explanation method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from trompe.attacks.constraints import Constraint, LInfBall, ValidImage
from trompe.attacks.objectives import Objective, ReachMap
from trompe.attacks.steps import Adam, ScaledAdam, Signed, Step
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

    def __post_init__(self) -> None:
        betas = (1.0 if self.beta_start is None else self.beta_start, self.beta_end)
        checks = {
            "iterations must be at least 0": self.iterations >= 0,
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
        """Beta at a step: ``b0 (be / b0)^(t / T)`` (PAPER.md, section 1)."""
        if self.beta_start is None:
            return None
        growth: float = (self.beta_end / self.beta_start) ** (iteration / iterations)
        return self.beta_start * growth

    def strictness(self, iteration: int, iterations: int) -> float:
        """The share of c2 that counts at a step."""
        share: float = self.output_start ** (1 - iteration / iterations)
        return share


presets: Registry[Callable[[Method, int], Preset]] = Registry("preset", "trompe.attacks")
"""Functions from an explanation method and the image's height to the settings of its attack."""

_PAPER = {
    "integrated_grad": Preset(iterations=500, step=Adam(5e-3)),
    "lrp": Preset(step=Adam(2e-4), beta_start=None),
    "pattern_attribution": Preset(step=Adam(2e-3)),
}
_PAPER_SMOOTHGRAD = {
    "gradient": Preset(step=Adam(3e-3)),
    "lrp": Preset(step=Adam(3e-4), beta_start=None),
}
_PAPER_BETA_SMOOTHING = {
    "gradient": Preset(iterations=500, step=Adam(2.5e-4), beta_start=None),
    "grad_times_input": Preset(iterations=500, step=Adam(2.5e-4), beta_start=None),
    "integrated_grad": Preset(iterations=200, step=Adam(2.5e-3), beta_start=None),
    "lrp": Preset(iterations=1500, step=Adam(2e-4), beta_start=None),
    "guided_backprop": Preset(iterations=500, step=Adam(5e-4), beta_start=None),
    "pattern_attribution": Preset(iterations=500, step=Adam(5e-4), beta_start=None),
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


def _innermost(method: Method) -> Method:
    """What a mean or a smoothing is taken of, however often it is wrapped."""
    base = getattr(method, "base", None)
    return _innermost(base) if isinstance(base, Method) else method


_RELEVANCE = ("lrp", "excitation_backprop")
_SIGNALS = ("guided_backprop", "deconvnet")


@presets.register("fast")
def fast(method: Method, height: int) -> Preset:
    """Two hundred small steps in a small ball, each kink of the surrogate smoothed that matters.

    Found by experiment (``benchmarks/README.md``). What helps most is smoothing max pooling, which
    the paper leaves as it is; then that beta begins low, that a change of the image has its price,
    so that each network gets as much of it as it needs, and that the output may stray in the
    beginning and not in the end. A smaller picture has fewer pixels to hide a change in: the ball
    grows as the root of 224 / height. For gradients large pictures take small steps: they reach
    more at a smaller change.

    Gradients take Adam's steps, relevance and signals signed ones. For relevance the surrogate
    leaves activations as they are (``docs/decisions.md``), and for signals, whose cut at an
    activation has no derivative but the smooth form another map, wherever there is pooling.
    """
    name = _innermost(method).name
    shrinking = math.sqrt(224 / height)
    common = Preset(
        iterations=200,
        prefactors=(1.0, 5e3),
        output_start=1e-3,
        pooling=3.0,
        relative=True,
    )
    if name in _RELEVANCE:
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
    if name in _SIGNALS:
        return replace(
            common,
            closeness=100.0,
            beta_start=3.0,
            beta_end=200.0,
            activations="without pooling",
            constraint=LInfBall(8 / 255 * shrinking),
            step=Signed(0.03 * (8 / 255 * shrinking)),
        )
    return replace(
        common,
        closeness=400.0,
        beta_start=8.0,
        beta_end=300.0,
        constraint=LInfBall(4 / 255 * shrinking),
        step=ScaledAdam(min(0.1, 0.03 * 224 / height) * (4 / 255 * shrinking)),
    )


@presets.register("thorough")
def thorough(method: Method, height: int) -> Preset:
    """``fast`` with the time that the paper's own code takes: twelve times as many steps.

    For gradients so many steps keep the output by themselves: a tenth of ``fast``'s weight on it
    suffices, and twice the price on the change of the image is affordable. For relevance and
    signals either was measured to be worse (``benchmarks/README.md``).
    """
    base = replace(fast(method, height), iterations=2400)
    if _innermost(method).name in (*_RELEVANCE, *_SIGNALS):
        return base
    c1, c2 = base.prefactors
    return replace(base, prefactors=(c1, c2 / 10), closeness=2 * base.closeness)


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
