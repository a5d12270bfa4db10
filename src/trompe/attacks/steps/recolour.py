"""The colours change, the same colour everywhere in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from trompe.attacks.steps.base import steps
from trompe.attacks.steps.transform import Transform
from trompe.errors import UsageError
from trompe.types import InputSpace


@steps.register("recolour")
@dataclass(frozen=True)
class Recolour(Transform):
    """A smooth map of colours to colours (Laidlaw and Feizi 2019, ReColorAdv).

    Its change is given at the points of a grid over all colours and is trilinear between them. The
    colours are red, green and blue; the published form takes CIE-LUV.

    Args:
        bound: the largest change of a colour's channel, pixel units 0..1.
        size: see ``Transform``.
        momentum: see ``Transform``.
        points: of the grid along each channel, at least 2.

    Raises:
        UsageError: if one of them is out of range, or when used, if the images have not three
            channels.
    """

    images_only = True

    bound: float = 0.06
    points: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 2:
            raise UsageError(f"points must be at least 2, not {self.points}")

    def identity(self, origin: Tensor) -> Tensor:
        """No change, [B, 3, points, points, points], of blue, green and red in this order."""
        if origin.dim() != 4 or origin.shape[1] != 3:
            raise UsageError(
                f"recolour needs images of 3 channels, not of the shape {tuple(origin.shape)}"
            )
        return origin.new_zeros(len(origin), 3, self.points, self.points, self.points)

    def image(self, theta: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """See ``Transform``: each pixel's colour changes by what the table says of it."""
        pixels = space.to_pixels(origin)
        colours = (2 * pixels - 1).permute(0, 2, 3, 1).unsqueeze(1)  # [B, 1, H, W, 3]
        change = F.grid_sample(
            theta, colours, mode="bilinear", padding_mode="border", align_corners=True
        ).squeeze(2)
        return space.from_pixels((pixels + change).clamp(0, 1))
