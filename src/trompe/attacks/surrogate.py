"""The smoothed network that an attack differentiates in place of the original one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trompe.attacks.presets import Preset
from trompe.engine import smooth
from trompe.engine.kinks import kinks
from trompe.engine.smoothing import Smoothed
from trompe.engine.surrogates import Beta
from trompe.explain.base import Method
from trompe.types import Explainer


def surrogate_of(
    settings: Preset, model: nn.Module, x: Tensor, *, random: bool = False
) -> Smoothed | None:
    """The surrogate that the settings ask for; ``None``: the model itself is differentiated.

    Args:
        settings: of the attack.
        model: the original one, frozen; not changed.
        x: images like those attacked, [B, C, H, W]; the first is looked at.
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
    return smooth(
        model, beta=settings.beta_start, pooling=settings.pooling, activations=activations
    )


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

    def _is_careful(self, args: Any, kwargs: Any) -> bool:
        return True
