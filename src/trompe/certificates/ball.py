"""The balls that certificates speak of, in numbers that are rounded outward.

All points, images or not, whose distance from the centre is at most the radius. The radius is in
units of the tensors that are passed (see ``certify`` for pixel units). The constraints of attacks
(``trompe.attacks.constraints``) are balls of the same norms, cut down to valid images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from trompe.certificates.upper import WIDEN
from trompe.errors import UsageError
from trompe.norms import Norm, norm_called


@dataclass(frozen=True)
class Ball:
    """All points within ``radius`` of a centre.

    Args:
        radius: Finite and not negative, in units of x.
        norm: What distances are measured in.

    Raises:
        UsageError: If the radius is negative, infinite or not a number.
    """

    radius: float
    norm: Norm

    def __post_init__(self) -> None:
        if not (self.radius >= 0 and math.isfinite(self.radius)):
            raise UsageError(f"radius must be finite and not negative, not {self.radius}")

    def stretch(self, size: int) -> float:
        """At least the largest l2 distance from the centre per unit of radius.

        Args:
            size: The number of dimensions.
        """
        exact = self.norm.stretch(size)
        return exact if exact == 1.0 else exact * WIDEN

    def project(self, offset: Tensor) -> Tensor:
        """The nearest point of the ball around 0 to each offset [N, ...]."""
        return self.norm.within(offset, self.radius)

    def shrunk(self, share: float) -> Ball:
        """The ball with ``share`` of the radius."""
        return replace(self, radius=self.radius * share)

    def l2(self, size: int) -> float:
        """At least the largest l2 distance from the centre, in ``size`` dimensions."""
        return self.radius * self.stretch(size)

    def dual(self, rows: Tensor) -> Tensor:
        """The most that linear forms can change in the ball: coefficients [d, ...] -> [...]."""
        return WIDEN * self.radius * self.norm.dual(rows, dim=0)


def ball(radius: float, norm: str = "l2") -> Ball:
    """The ball of a radius in the norm of that name.

    Raises:
        UsageError: If there is no such norm, or the radius is negative or not finite.
    """
    return Ball(float(radius), norm_called(norm))
