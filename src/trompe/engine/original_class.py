"""The class that a model itself gives, whatever its smoothed version would say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.engine.smoothing import unwrapped


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """The class of each image, int64 [B], that the model itself gives, not its smoothed version.

    Args:
        model: any module [B, ...] -> [B, K], smoothed or not.
        x: images, [B, ...]; not changed.
    """
    with torch.no_grad():
        return unwrapped(model)(x.detach().clone()).argmax(dim=1)
