"""One number per image, beside tensors that hold more of each."""

from __future__ import annotations

from torch import Tensor


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """``values`` [B] in a shape that goes with ``like`` [B, ...]: [B, 1, ..., 1]."""
    return values.view(-1, *[1] * (like.dim() - 1))
