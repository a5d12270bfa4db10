"""The smoothed network that an attack differentiates in place of the original one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trompe.attacks.presets import Preset
from trompe.engine import smooth
from trompe.engine.kinks import kinks
from trompe.engine.smoothing import Smoothed


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
    activations = settings.activations
    if not isinstance(activations, bool):
        activations = all(kink.fate != "pooling" for kink in kinks(model, x[:1]).kinks)
    if random:
        return _Unvouched(model, settings.beta_start, settings.pooling, activations)
    return smooth(
        model, beta=settings.beta_start, pooling=settings.pooling, activations=activations
    )


class _Unvouched(Smoothed):
    """Smoothed with all care, and not compared with the model, which answers by chance."""

    def _is_careful(self, args: Any, kwargs: Any) -> bool:
        return True
