"""Fairwashing in closed form: a function that vanishes on the data's span can be added at will."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OffTheData(nn.Module):
    """A model plus a linear function that is zero on all of the data.

    Anders et al. 2020, section 3: with P the projection on the span of the data (about their mean),
    ``f'(x) = f(x) + c^T (I - P) (x - mean)`` for every class. The outputs on the data do not change
    (up to rounding), while every gradient moves by ``(I - P) c``, which can be any vector off the
    data: so gradients can be made to look like anything, and no test on data alone will tell.

    Args:
        model: A classifier [B, ...] -> [B, K].
        data: The images [N, ...] whose outputs stay; fewer than an image has numbers.
        direction: c, of an image's shape: what is added to the gradients.
    """

    mean: Tensor
    off: Tensor

    def __init__(self, model: nn.Module, data: Tensor, direction: Tensor) -> None:
        super().__init__()
        self.model = model
        flat = data.flatten(1)
        mean = flat.mean(dim=0)
        _, sizes, rows = torch.linalg.svd(flat - mean, full_matrices=False)
        basis = rows[sizes > sizes[0] * 1e-9]
        c = direction.flatten()
        off = c - basis.mT @ (basis @ c)
        off = off - basis.mT @ (basis @ off)  # once more, for the rounding of the first time
        self.register_buffer("mean", mean)
        self.register_buffer("off", off)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the model, plus the same number for each class, [B, K]."""
        added = (x.flatten(1) - self.mean) @ self.off
        out: Tensor = self.model(x) + added[:, None]
        return out
