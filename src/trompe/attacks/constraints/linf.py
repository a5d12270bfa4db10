"""A ball in the maximum norm, cut down to valid images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Ball, constraints, noise_like
from trompe.norms import LInf
from trompe.types import InputSpace


@constraints.register("linf")
@dataclass(frozen=True)
class LInfBall(Ball):
    """No pixel changes by more than the radius in any channel, and the result is an image."""

    norm = LInf()

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """Clamp every pixel to the ball and to its valid range."""
        reach = space.scale(self.radius, origin)
        return space.clamp(torch.clamp(x, origin - reach, origin + reach))

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Uniform noise within the ball."""
        noise = space.scale(self.radius, origin) * noise_like(origin, generator, normal=False)
        return self.project(origin + noise, origin, space)
