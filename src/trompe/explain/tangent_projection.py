"""Tangent-space projection (Anders et al. 2020): what of a map the data can show."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.explain.gradient import Gradient
from trompe.types import Explanation


@dataclass(frozen=True)
class TangentProjection(Method):
    """``V V^T h``: a method's map, projected on the directions in which neighbours lie.

    V holds the first principal directions of an image's nearest neighbours among ``data``, about
    their mean (local PCA). A model that was changed off the data only (``OffTheData``) shows what
    the original one shows. Neighbours and V count as given when the map is differentiated; an
    attack passes through V V^T, and every iterate gets neighbours of its own. It needs data, so it
    is no choice by name: make it, and give it wherever an explainer is taken; ``--tangents IMAGES``
    of ``trompe explain`` and ``trompe robustness``.

    Args:
        data: Images of the kind explained, normalised, [N, ...].
        base: The method whose map is projected.
        neighbours: How many images V is made of.
        rank: The largest number of directions; those of no size are left out.

    Raises:
        UsageError: If a number is out of range, or, when called, the images are of another shape.
    """

    name = "tangent_projection"
    data: Tensor
    base: Method = field(default_factory=Gradient)
    neighbours: int = 32
    rank: int = 16

    def __post_init__(self) -> None:
        if not 2 <= self.neighbours <= len(self.data):
            raise UsageError(
                f"neighbours must be 2 to {len(self.data)}, the images given, not {self.neighbours}"
            )
        if self.rank < 1:
            raise UsageError(f"rank must be at least 1, not {self.rank}")

    def tangents(self, x: Tensor) -> Tensor:
        """V of each image, [B, D, r]; columns of no size are zero."""
        if x.shape[1:] != self.data.shape[1:]:
            raise UsageError(
                f"the images are {tuple(x.shape[1:])}, the data {tuple(self.data.shape[1:])}: give "
                "data of the same shape"
            )
        flat, data = x.detach().flatten(1), self.data.to(x).flatten(1)
        nearest = torch.cdist(flat, data).topk(self.neighbours, dim=1, largest=False).indices
        near = data[nearest]
        _, sizes, rows = torch.linalg.svd(
            near - near.mean(dim=1, keepdim=True), full_matrices=False
        )
        least = sizes[:, :1] * torch.finfo(x.dtype).eps * max(near.shape[1:])
        kept = rows * (sizes > least)[:, :, None]
        return kept[:, : self.rank].mT

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            found = self.base.explain(model, x, target)
            v = self.tangents(x)
            flat = found.map.flatten(1)[:, :, None]
            return Explanation((v @ (v.mT @ flat)).view_as(found.map), found.logits)

        return explained(method, model, x)
