"""The norms that balls are made of, for attacks and certificates alike: one small class per norm.

Changes are tensors [N, ...], one per image; each counts as if it were alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.per_image import per_image


class Norm(ABC):
    """How large a change is, and what follows from it for the ball of its norm around 0."""

    name: str

    @abstractmethod
    def size(self, change: Tensor) -> Tensor:
        """The norm of each change [N, ...], [N]."""

    @abstractmethod
    def within(self, change: Tensor, radius: float) -> Tensor:
        """The nearest point (in l2) of the ball of that radius around 0, for each change."""

    @abstractmethod
    def ascent(self, gradient: Tensor) -> Tensor:
        """The change of norm 1 along which a score of these gradients [N, ...] rises most.

        It is 0 where the gradient is; entries that are not finite count as 0.
        """

    @abstractmethod
    def dual(self, rows: Tensor, dim: int) -> Tensor:
        """The dual norm of linear forms that lie along ``dim``: their rise per unit of radius."""

    @abstractmethod
    def dual_of(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """At least the dual norm of linear forms of which two norms are known."""

    @abstractmethod
    def stretch(self, size: int) -> float:
        """The largest l2 norm of a change of norm 1, in ``size`` dimensions."""


class L1(Norm):
    """The sum of absolute entries."""

    name = "l1"

    def size(self, change: Tensor) -> Tensor:
        """See ``Norm``."""
        return change.abs().flatten(1).sum(dim=1)

    def within(self, change: Tensor, radius: float) -> Tensor:
        """See ``Norm``: every entry moves towards 0 by as much (Duchi et al. 2008, figure 1)."""
        largest = change.abs().flatten(1).sort(dim=1, descending=True).values
        count = torch.arange(1, largest.shape[1] + 1, dtype=change.dtype, device=change.device)
        excess = (largest.cumsum(dim=1) - radius) / count
        shrink = excess.amax(dim=1).clamp_min(0)  # the largest is that of the entries left
        kept = (change.abs() - per_image(shrink, change)).clamp_min(0)
        inside = per_image(self.size(change) <= radius, change)
        return torch.where(inside, change, kept.copysign(change))

    def ascent(self, gradient: Tensor) -> Tensor:
        """See ``Norm``: all along the entry that is largest."""
        flat = _finite(gradient).flatten(1)
        place = flat.abs().argmax(dim=1, keepdim=True)
        step = torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign())
        return step.view_as(gradient)

    def dual(self, rows: Tensor, dim: int) -> Tensor:
        """See ``Norm``: the largest entry."""
        return rows.abs().amax(dim=dim)

    def dual_of(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """See ``Norm``: the largest entry is at most the l2 norm."""
        return l2

    def stretch(self, size: int) -> float:
        """See ``Norm``: 1, at the corners."""
        return 1.0


class L2(Norm):
    """The Euclidean norm."""

    name = "l2"

    def size(self, change: Tensor) -> Tensor:
        """See ``Norm``."""
        return change.flatten(1).norm(dim=1)

    def within(self, change: Tensor, radius: float) -> Tensor:
        """See ``Norm``: what lies outside is scaled down."""
        if radius == 0:
            return change * 0
        size = per_image(self.size(change), change)
        return change * (radius / size.clamp(min=radius)).clamp(max=1.0)

    def ascent(self, gradient: Tensor) -> Tensor:
        """See ``Norm``: the gradient's own direction."""
        gradient = _finite(gradient)
        size = per_image(self.size(gradient), gradient)
        return gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)

    def dual(self, rows: Tensor, dim: int) -> Tensor:
        """See ``Norm``: the l2 norm is its own dual."""
        return rows.norm(dim=dim)

    def dual_of(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """See ``Norm``."""
        return l2

    def stretch(self, size: int) -> float:
        """See ``Norm``: 1."""
        return 1.0


class LInf(Norm):
    """The largest absolute entry."""

    name = "linf"

    def size(self, change: Tensor) -> Tensor:
        """See ``Norm``."""
        return change.abs().flatten(1).amax(dim=1)

    def within(self, change: Tensor, radius: float) -> Tensor:
        """See ``Norm``: each entry is clamped."""
        return change.clamp(-radius, radius)

    def ascent(self, gradient: Tensor) -> Tensor:
        """See ``Norm``: towards a corner."""
        return _finite(gradient).sign()

    def dual(self, rows: Tensor, dim: int) -> Tensor:
        """See ``Norm``: the dual norm is l1."""
        return rows.abs().sum(dim=dim)

    def dual_of(self, *, l2: Tensor, l1: Tensor) -> Tensor:
        """See ``Norm``."""
        return l1

    def stretch(self, size: int) -> float:
        """See ``Norm``: from the centre to a corner."""
        return math.sqrt(size)


_NORMS: dict[str, Norm] = {norm.name: norm for norm in (L1(), L2(), LInf())}
NORMS = tuple(_NORMS)
"""The norms by name, as ``certify`` and the command line take them."""


def norm_called(name: str) -> Norm:
    """The norm of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in _NORMS:
        raise UsageError(f"unknown norm '{name}': choose from {', '.join(NORMS)}")
    return _NORMS[name]


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
