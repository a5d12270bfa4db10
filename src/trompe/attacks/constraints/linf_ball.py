"""A ball in the maximum norm, cut down to valid images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import constraints
from trompe.errors import UsageError
from trompe.types import InputSpace


@constraints.register("linf_ball")
@dataclass(frozen=True)
class LInfBall:
    """No pixel changes by more than the radius, and the result is an image.

    Args:
        input_space: the model's normalisation.
        radius: largest change of a pixel's channel, pixel units 0..1.

    Raises:
        UsageError: if the radius is not positive.
    """

    input_space: InputSpace
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise UsageError(f"the radius must be positive, not {self.radius}")

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """Clamp every pixel to the ball and to its valid range."""
        reach = self.input_space.scale(self.radius, origin)
        return self.input_space.clamp(torch.clamp(x, origin - reach, origin + reach))

    def violation(self, x: Tensor, origin: Tensor) -> Tensor:
        """The largest distance of a pixel from what is allowed, normalised units, [B]."""
        return (x - self.project(x, origin)).abs().flatten(1).amax(dim=1)
