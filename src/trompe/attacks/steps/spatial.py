"""The pixels move, and keep their colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.attacks.steps.base import steps
from trompe.attacks.steps.transform import Transform
from trompe.errors import UsageError
from trompe.types import InputSpace


@steps.register("spatial")
@dataclass(frozen=True)
class Spatial(Transform):
    """A smooth flow of the pixels (Xiao et al. 2018, stAdv): no colour is new.

    The flow is given at the points of a grid and is bilinear between them, so that neighbouring
    pixels move alike; published forms have a flow per pixel and a price on its total variation.
    Where a pixel comes from lies between the pixels, its colour is theirs, interpolated.

    Args:
        bound: the farthest that a pixel moves, as a share of the height and the width.
        size: see ``Transform``.
        momentum: see ``Transform``.
        cells: points of the grid along each side, at least 2.

    Raises:
        UsageError: if one of them is out of range.
    """

    images_only = True

    bound: float = 0.05
    cells: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 2:
            raise UsageError(f"cells must be at least 2, not {self.cells}")

    def identity(self, origin: Tensor) -> Tensor:
        """No flow, [B, 2, cells, cells]: to the right and down, as shares of the sides."""
        return origin.new_zeros(len(origin), 2, self.cells, self.cells)

    def image(self, theta: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """See ``Transform``: each pixel takes the colour of the place that the flow names."""
        height, width = origin.shape[-2:]
        flow = F.interpolate(theta, size=(height, width), mode="bilinear", align_corners=True)
        rows, columns = (
            (2 * torch.arange(side, dtype=origin.dtype, device=origin.device) + 1) / side - 1
            for side in (height, width)
        )
        down, right = torch.meshgrid(rows, columns, indexing="ij")
        places = torch.stack([right, down], dim=-1) + 2 * flow.permute(0, 2, 3, 1)
        return F.grid_sample(
            origin, places, mode="bilinear", padding_mode="border", align_corners=False
        )
