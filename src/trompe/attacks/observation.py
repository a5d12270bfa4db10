"""What an attack sees of an image: its pixels, its maps, its logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.explain.base import Method
from trompe.types import Explainer, relative


@dataclass(frozen=True)
class Observation:
    """One look at a batch.

    Args:
        x: normalised images, [B, C, H, W].
        map: their heat maps, [B, H, W], each summing to 1; not a number where there is none.
        logits: [B, K].
        relevance: their maps as the method gives them, of any sign, [B, C, H, W].
    """

    x: Tensor
    map: Tensor
    logits: Tensor
    relevance: Tensor


def observe(model: nn.Module, explainer: Explainer, x: Tensor, target: Tensor) -> Observation:
    """Explain ``x`` and keep the logits of the same forward pass, where the method gives them."""
    if isinstance(explainer, Method):
        relevance, logits = explainer.explain(model, x, target)
    else:
        relevance, logits = explainer(model, x, target), model(x)
    return Observation(x, relative(relevance), logits, relevance)
