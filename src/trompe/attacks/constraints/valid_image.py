"""The only constraint of the paper: the result is an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.constraints.base import constraints
from trompe.types import InputSpace


@constraints.register("valid_image")
@dataclass(frozen=True)
class ValidImage:
    """Every pixel lies within 0..1 in pixel units.

    Args:
        input_space: the model's normalisation.
    """

    input_space: InputSpace

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """Clamp every pixel."""
        return self.input_space.clamp(x)

    def violation(self, x: Tensor, origin: Tensor) -> Tensor:
        """The largest distance of a pixel from its range, normalised units, [B]."""
        return (x - self.input_space.clamp(x)).abs().flatten(1).amax(dim=1)
