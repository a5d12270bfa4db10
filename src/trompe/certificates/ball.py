"""The balls that certificates speak of: one small class per norm.

All points, images or not, whose distance from the centre is at most the radius. The radius is in
units of the tensors that are passed (see ``certify`` for pixel units).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trompe.certificates.upper import WIDEN
from trompe.errors import UsageError
from trompe.per_image import per_image


@dataclass(frozen=True)
class Ball(ABC):
    """All points within ``radius`` of a centre.

    Args:
        radius: Finite and not negative, in units of x.

    Raises:
        UsageError: If the radius is negative, infinite or not a number.
    """

    radius: float

    def __post_init__(self) -> None:
        if not (self.radius >= 0 and math.isfinite(self.radius)):
            raise UsageError(f"radius must be finite and not negative, not {self.radius}")

    @property
    @abstractmethod
    def norm(self) -> str:
        """How the norm is called: ``l2`` or ``linf``."""

    @abstractmethod
    def stretch(self, size: int) -> float:
        """The largest l2 distance from the centre per unit of radius, in ``size`` dimensions."""

    @abstractmethod
    def row_size(self, rows: Tensor, dim: int) -> Tensor:
        """The dual norm of linear forms that lie along ``dim``: their rise per unit of radius."""

    @abstractmethod
    def of_rows(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """Which of two sizes of known linear forms is their dual norm."""

    @abstractmethod
    def size(self, offset: Tensor) -> Tensor:
        """The norm of offsets [N, ...] from the centre, [N]."""

    @abstractmethod
    def project(self, offset: Tensor) -> Tensor:
        """The nearest point of the ball around 0 to each offset [N, ...]."""

    @abstractmethod
    def ascent(self, gradient: Tensor) -> Tensor:
        """The step of norm 1 along which a score of these gradients [N, ...] rises most."""

    def shrunk(self, share: float) -> Ball:
        """The ball with ``share`` of the radius."""
        return replace(self, radius=self.radius * share)

    def l2(self, size: int) -> float:
        """At least the largest l2 distance from the centre, in ``size`` dimensions."""
        return self.radius * self.stretch(size)

    def dual(self, rows: Tensor) -> Tensor:
        """The most that linear forms can change in the ball: coefficients [d, ...] -> [...]."""
        return WIDEN * self.radius * self.row_size(rows, dim=0)


class EuclideanBall(Ball):
    """The ball of the l2 norm."""

    norm = "l2"

    def stretch(self, size: int) -> float:
        """See ``Ball``: 1."""
        return 1.0

    def row_size(self, rows: Tensor, dim: int) -> Tensor:
        """See ``Ball``: the l2 norm is its own dual."""
        return rows.norm(dim=dim)

    def of_rows(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """See ``Ball``."""
        return l2

    def size(self, offset: Tensor) -> Tensor:
        """See ``Ball``."""
        return offset.flatten(1).norm(dim=1)

    def project(self, offset: Tensor) -> Tensor:
        """See ``Ball``: what lies outside is scaled down."""
        if self.radius == 0:
            return offset * 0
        size = _column(self.size(offset), offset)
        return offset * (self.radius / size.clamp(min=self.radius)).clamp(max=1.0)

    def ascent(self, gradient: Tensor) -> Tensor:
        """See ``Ball``: the gradient's own direction."""
        gradient = _finite(gradient)
        size = _column(self.size(gradient), gradient)
        return gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)


class MaximumBall(Ball):
    """The ball of the maximum norm: a cube with side ``2 radius``."""

    norm = "linf"

    def stretch(self, size: int) -> float:
        """See ``Ball``: from the centre to a corner."""
        return math.sqrt(size) * WIDEN

    def row_size(self, rows: Tensor, dim: int) -> Tensor:
        """See ``Ball``: the dual norm is l1."""
        return rows.abs().sum(dim=dim)

    def of_rows(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """See ``Ball``."""
        return l1

    def size(self, offset: Tensor) -> Tensor:
        """See ``Ball``."""
        return offset.flatten(1).abs().amax(dim=1)

    def project(self, offset: Tensor) -> Tensor:
        """See ``Ball``: each entry is clamped."""
        return offset.clamp(-self.radius, self.radius)

    def ascent(self, gradient: Tensor) -> Tensor:
        """See ``Ball``: towards a corner."""
        return _finite(gradient).sign()


_BALLS: dict[str, type[Ball]] = {"l2": EuclideanBall, "linf": MaximumBall}
NORMS = tuple(_BALLS)
"""The norms by name, as ``certify`` and the command line take them."""


def ball(radius: float, norm: str = "l2") -> Ball:
    """The ball of a radius in the norm of that name.

    Raises:
        UsageError: If there is no such norm, or the radius is negative or not finite.
    """
    if norm not in _BALLS:
        raise UsageError(f"unknown norm '{norm}': choose {' or '.join(NORMS)}")
    return _BALLS[norm](float(radius))


def _column(values: Tensor, like: Tensor) -> Tensor:
    return per_image(values, like)


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
