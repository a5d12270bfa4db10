"""The smoothed network that an attack differentiates in place of the original one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trompe.attacks.presets import Preset
from trompe.engine import smooth
from trompe.engine.folding import folded
from trompe.engine.kinks import kinks
from trompe.engine.smoothing import Smoothed
from trompe.engine.spreads import Spreads, spreads
from trompe.engine.surrogates import Beta
from trompe.explain.base import Method
from trompe.explain.grad_times_input import GradTimesInput
from trompe.explain.gradient import Gradient
from trompe.explain.integrated_grad import IntegratedGrad
from trompe.explain.smoothgrad import SmoothGrad
from trompe.types import Explainer

_OF_THE_FUNCTION = (Gradient, GradTimesInput, IntegratedGrad)
"""Methods whose map depends on the function alone, not on the operations it is written in."""


def surrogate_of(
    settings: Preset,
    model: nn.Module,
    x: Tensor,
    *,
    method: Explainer | None = None,
    random: bool = False,
) -> Smoothed | None:
    """The surrogate that the settings ask for; ``None``: the model itself is differentiated.

    Args:
        settings: of the attack.
        model: the original one, frozen; not changed.
        x: images like those attacked, [B, C, H, W]; the first is looked at.
        method: the method attacked. Where its map cannot tell, the surrogate's batch norms are
            folded into the layers before them.
        random: whether the model answers by chance, so that its smoothed form cannot be compared
            with it, as is done with others before it is used.
    """
    if settings.beta_start is None:
        return None
    if isinstance(model, Smoothed) and model.activations:
        return _Capped(model, settings.beta_start, settings.pooling)
    activations = settings.activations
    if not isinstance(activations, bool):
        activations = all(kink.fate != "pooling" for kink in kinks(model, x[:1]).kinks)
    if random:
        return _Unvouched(model, settings.beta_start, settings.pooling, activations)
    beta, pooling = settings.beta_start, settings.pooling
    spread = spreads(model, x) if settings.per_layer and activations else Spreads()
    surrogate = smooth(model, beta=beta, pooling=pooling, activations=activations)
    surrogate.scales, surrogate.pooling_scales = spread.scales
    if not _of_the_function(method):
        return surrogate
    copy = folded(model, x)
    if copy is model or surrogate.is_careful((x,), {}):
        return surrogate
    return _Vouched(copy, beta, pooling, activations, *spread.scales)


def _of_the_function(method: Explainer | None) -> bool:
    """Whether equal functions have equal maps; a subclass, or another method, may look inside."""
    if type(method) is SmoothGrad:
        return _of_the_function(method.base)
    return type(method) in _OF_THE_FUNCTION


def differentiated(settings: Preset, model: nn.Module, method: Explainer) -> Explainer:
    """The method as the settings have it differentiated on the surrogate.

    The map of a model that is smoothed itself, or of beta-smoothing, is cut smoothly where it is
    judged, and therefore where it is attacked.
    """
    smoothed = isinstance(model, Smoothed) and model.activations
    if settings.hard_cut and not smoothed and isinstance(method, Method):
        return method.with_hard_cut()
    return method


class _Capped(Smoothed):
    """The surrogate of a model that is smoothed itself: never less smooth than the model is.

    A surrogate of larger beta than the model's own would climb another network, and call a map
    robust that it has never attacked.

    Args:
        model: the one attacked.
        beta: asked for; may be set anew, and counts as far as it is below the model's own.
        pooling: multiple of beta at which max pooling is smoothed, if the model does not do so.
    """

    def __init__(self, model: Smoothed, beta: float, pooling: float) -> None:
        self.most = float(model.beta)
        sharper = beta / min(beta, self.most)  # pooling begins where it would without the cap
        if model.pooling:
            pooling, sharper = min(pooling * sharper, model.pooling), 1.0
        super().__init__(model.model, beta, pooling * sharper)

    @property
    def beta(self) -> Beta:
        """The one that counts."""
        return _least(self._asked, self.most)

    @beta.setter
    def beta(self, value: Beta) -> None:
        self._asked = value


def _least(one: Beta, other: float) -> Beta:
    if isinstance(one, Tensor):
        return one.clamp(max=other)
    return min(one, other)


class _Unvouched(Smoothed):
    """Smoothed with all care, and not compared with the model, which answers by chance."""

    def is_careful(self, args: Any, kwargs: Any) -> bool:
        """See ``Smoothed``."""
        return True


class _Vouched(Smoothed):
    """Smoothed without more ado: a copy of a model that was looked at and needs no care."""

    def is_careful(self, args: Any, kwargs: Any) -> bool:
        """See ``Smoothed``."""
        return False
