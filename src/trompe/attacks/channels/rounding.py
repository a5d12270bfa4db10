"""Rounding to the levels of an image file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.channels.base import Channel, channels
from trompe.errors import UsageError
from trompe.types import InputSpace


@channels.register("rounding")
@dataclass(frozen=True)
class Rounding(Channel):
    """Every pixel is rounded to the nearest of a number of levels, as an 8-bit PNG does.

    The derivative is that of leaving it (straight-through, Bengio et al. 2013): rounding's own is
    zero almost everywhere.

    Args:
        levels: how many there are from black to white, at least 2.

    Raises:
        UsageError: if there are fewer.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise UsageError(f"levels must be at least 2, not {self.levels}")

    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """See ``Channel``."""
        pixels = space.to_pixels(x)
        steps = self.levels - 1
        rounded = (pixels.detach().clamp(0, 1) * steps).round() / steps
        return space.from_pixels(pixels + (rounded - pixels.detach()))
