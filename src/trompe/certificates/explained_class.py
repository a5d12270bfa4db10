"""Which class a certificate from samples explains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.engine.smoothing import unwrapped
from trompe.errors import UsageError


def explained_class(model: nn.Module, x: Tensor, target: Tensor | None) -> Tensor:
    """The class of each image: the given one, or what the model itself predicts, [B].

    Args:
        model: The classifier, [B, ...] -> [B, K]; of a smoothed one the original predicts.
        x: The images, [B, ...].
        target: Class of each image, [B], or ``None``.

    Raises:
        UsageError: If there is no such class.
    """
    with torch.no_grad():
        logits = unwrapped(model)(x.detach().clone())
    if target is None:
        return logits.argmax(dim=1)
    if not bool(((target >= 0) & (target < logits.shape[1])).all()):
        raise UsageError(
            f"target {target.tolist()} does not fit: the model has {logits.shape[1]} classes"
        )
    return target
