"""Scaling down, or up, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from trompe.attacks.channels.base import Channel, channels
from trompe.attacks.channels.files import from_pictures, to_pictures
from trompe.errors import UsageError
from trompe.types import InputSpace


@channels.register("resize")
@dataclass(frozen=True)
class Resize(Channel):
    """The image is scaled by a factor and back to its size, bilinear with antialiasing.

    Args:
        factor: of the sides, positive and at most 16; 0.9 makes 202 of 224 pixels.

    Raises:
        UsageError: if the factor is out of range: larger images would not fit into memory.
    """

    images_only = True

    factor: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 16:
            raise UsageError(f"the factor must be above 0 and at most 16, not {self.factor}")

    def sides(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the scaled image, at least 1."""
        height, width = (max(1, round(self.factor * side)) for side in x.shape[-2:])
        return height, width

    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """See ``Channel``."""
        height, width = x.shape[-2:]
        scaled = x
        for size in (self.sides(x), (height, width)):
            scaled = F.interpolate(
                scaled, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        return scaled

    def real(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """The 8-bit image scaled by Pillow, both times to 8 bits."""
        height, width = self.sides(x)
        scaled = [
            one.resize((width, height), Image.Resampling.BILINEAR).resize(
                one.size, Image.Resampling.BILINEAR
            )
            for one in to_pictures(x, space)
        ]
        return from_pictures(scaled, x, space)
