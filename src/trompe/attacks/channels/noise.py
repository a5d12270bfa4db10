"""Noise of a sensor or of a transmission."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.channels.base import Channel, channels
from trompe.errors import UsageError
from trompe.types import InputSpace


@channels.register("noise")
@dataclass(frozen=True)
class Noise(Channel):
    """Noise on every pixel's channel, drawn anew at every call; the result is a valid image.

    Args:
        size: standard deviation of normal noise, or half the width of uniform noise, pixel units
            0..1.
        uniform: whether it is uniform.

    Raises:
        UsageError: if the size is negative or not finite.
    """

    random = True
    size: float = 2 / 255
    uniform: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.size < float("inf"):
            raise UsageError(f"the noise's size must not be negative, not {self.size}")

    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """See ``Channel``; drawn on the CPU, so that devices agree."""
        if self.uniform:
            drawn = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
        else:
            drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return space.clamp(x + space.scale(self.size, x) * drawn.to(x.device))
