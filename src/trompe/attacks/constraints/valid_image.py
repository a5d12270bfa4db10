"""The only constraint of the paper: the result is an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Constraint, change, constraints, noise_like
from trompe.types import InputSpace


@constraints.register("valid_image")
@dataclass(frozen=True)
class ValidImage(Constraint):
    """Every pixel lies within 0..1 in pixel units; its change may be as large as that."""

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """Clamp every pixel."""
        return space.clamp(x)

    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The largest change of a pixel's channel, [B]."""
        return change(x, origin, space).abs().flatten(1).amax(dim=1)

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """An image of uniform noise."""
        drawn = (noise_like(origin, generator, normal=False) + 1) / 2
        return space.clamp(space.from_pixels(drawn))
