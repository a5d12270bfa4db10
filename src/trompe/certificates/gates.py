"""Nonlinear layers as gates: bounds of their change, slope and curvature over intervals.

A gate takes u [B, *in] to [B, *out]; in and out are the same for activations, and a pool takes
its windows [B, window, ...] to [B, ...]. Its derivative is ``sum over windows of slope * du``,
which for activations is ``slope * du``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Range(NamedTuple):
    """A lower and an upper bound, entry by entry."""

    low: Tensor
    high: Tensor


class Gate(ABC):
    """One kind of nonlinear layer; see the module."""

    windowed = False

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """The output at u; it never falls where an entry of u grows."""

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """The derivative at u, of its shape: the one autograd takes, at a kink."""

    @abstractmethod
    def slopes(self, u: Range) -> Range:
        """All (Clarke) derivatives at all points of the box u."""

    @abstractmethod
    def bends(self, u: Range) -> Tensor:
        """At least the norm of the second derivative in the box, of the shape of the output."""

    def curbs(self, u: Range) -> Tensor:
        """A diagonal that every second derivative in the box stays below, of the argument's shape.

        Below in the order of symmetric matrices; here the norm for each entry.
        """
        return self.spread(self.bends(u)).expand_as(u.low)

    def turn(self, u: Tensor, du: Tensor) -> Tensor:
        """The derivative of the slopes at u along du, of its shape; 0 for gates with kinks."""
        return torch.zeros_like(du)

    def turns(self, u: Tensor, box: Range) -> Tensor:
        """A diagonal that the second derivative in the box, less that at u, stays within.

        Within in the order of symmetric matrices, from below and above; of the argument's shape.
        """
        return self.curbs(box)

    @property
    @abstractmethod
    def bend(self) -> float:
        """At least the norm of the second derivative anywhere."""

    def gain(self, slopes: Range) -> float:
        """At least the spectral norm of the layer's Jacobian, given bounds of its slopes."""
        return float(slopes.high.max())

    def spread(self, r: Tensor) -> Tensor:
        """A tensor of the output's shape, placed to multiply slopes."""
        return r

    def gather(self, u: Tensor) -> Tensor:
        """The sum over the windows: the transpose of ``spread``."""
        return u


class Relu(Gate):
    """``max(u, 0)``: the slope takes all values of [0, 1] at the kink."""

    bend = float("inf")

    def value(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return u.clamp(min=0)

    def slope(self, u: Tensor) -> Tensor:
        """See ``Gate``; 0 at the kink, as in PyTorch."""
        return (u > 0).to(u.dtype)

    def slopes(self, u: Range) -> Range:
        """See ``Gate``."""
        return Range((u.low > 0).to(u.low.dtype), (u.high >= 0).to(u.low.dtype))

    def bends(self, u: Range) -> Tensor:
        """Infinite where the kink is within reach."""
        kink = (u.low <= 0) & (u.high >= 0)
        return torch.where(kink, torch.inf, 0.0).to(u.low.dtype)


class Softplus(Gate):
    """``log(1 + exp(beta u)) / beta``: slope in (0, 1), second derivative at most beta / 4."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    @property
    def bend(self) -> float:
        """See ``Gate``: beta / 4."""
        return self.beta / 4

    def value(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return F.softplus(u, beta=self.beta, threshold=40)

    def slope(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return torch.sigmoid(self.beta * u)

    def slopes(self, u: Range) -> Range:
        """See ``Gate``."""
        return Range(self.slope(u.low), self.slope(u.high))

    def second(self, u: Tensor) -> Tensor:
        """The second derivative, an even function that falls with ``|u|``."""
        slope = self.slope(u.abs())
        return self.beta * slope * torch.sigmoid(-self.beta * u.abs())

    def turn(self, u: Tensor, du: Tensor) -> Tensor:
        """See ``Gate``."""
        return self.second(u) * du

    def turns(self, u: Tensor, box: Range) -> Tensor:
        """See ``Gate``."""
        low, high = self.seconds(box)
        return torch.maximum(high - self.second(u), self.second(u) - low)

    def seconds(self, u: Range) -> Range:
        """All second derivatives in the box."""
        far = torch.maximum(u.low.abs(), u.high.abs())
        near = torch.where(
            (u.low <= 0) & (u.high >= 0), 0.0, torch.minimum(u.low.abs(), u.high.abs())
        )
        return Range(self.second(far), self.second(near))

    def bends(self, u: Range) -> Tensor:
        """See ``Gate``."""
        return self.seconds(u).high


class _Pool(Gate):
    """Windows along the first axis after the batch; entries of ``-inf`` are padding."""

    windowed = True

    def gain(self, slopes: Range) -> float:
        """Slopes are not negative and sum to 1 in a window: their norm is at most 1."""
        return min(1.0, float(slopes.high.norm(dim=1).max()))

    def spread(self, r: Tensor) -> Tensor:
        """See ``Gate``."""
        return r.unsqueeze(1)

    def gather(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return u.sum(dim=1)


class LogSumExp(_Pool):
    """``log(sum(exp(beta u))) / beta`` over each window; slopes are the softmax of its entries."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    @property
    def bend(self) -> float:
        """``beta ||diag(p) - p p^T||``, at most beta / 2."""
        return self.beta / 2

    def value(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return torch.logsumexp(self.beta * u, dim=1) / self.beta

    def slope(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return torch.softmax(self.beta * u, dim=1)

    def slopes(self, u: Range) -> Range:
        """The share of an entry grows with it and falls with the others: extreme at corners."""
        return Range(self._share(u.low, u.high), self._share(u.high, u.low))

    def _share(self, own: Tensor, others: Tensor) -> Tensor:
        shares = []
        for i in range(own.shape[1]):
            rest = torch.cat([others[:, :i], others[:, i + 1 :]], dim=1)
            if rest.shape[1] == 0:
                shares.append(torch.ones_like(own[:, i]))
                continue
            against = torch.logsumexp(self.beta * rest, dim=1)
            margin = self.beta * own[:, i] - against
            # Padding: -inf against a number is a share of 0.
            shares.append(torch.sigmoid(margin))
        return torch.stack(shares, dim=1)

    def turn(self, u: Tensor, du: Tensor) -> Tensor:
        """``beta (diag(p) - p p^T) du``."""
        p = self.slope(u)
        return self.beta * p * (du - (p * du).sum(dim=1, keepdim=True))

    def turns(self, u: Tensor, box: Range) -> Tensor:
        """By row sums (Gershgorin): p moves by a, and ``p_i p_j`` by ``a_i p_j + p_i' a_j``."""
        p, (low, high) = self.slope(u), self.slopes(box)
        away = torch.maximum(high - p, p - low).clamp(min=0)
        return self.beta * (2 * away + torch.maximum(high, p) * away.sum(dim=1, keepdim=True))

    def curbs(self, u: Range) -> Tensor:
        """``beta (diag(p) - p p^T)`` is below ``beta diag(p)``, and p below its upper bound."""
        return self.beta * self.slopes(u).high

    def bends(self, u: Range) -> Tensor:
        """The norm of ``diag(p) - p p^T`` is at most max p, 1/2, and its trace ``1 - ||p||^2``."""
        low, high = self.slopes(u)
        top = high.amax(dim=1).clamp(max=0.5)
        trace = 1 - low.square().sum(dim=1)
        return self.beta * torch.minimum(top, trace)


class Maximum(_Pool):
    """Max pooling: the slopes are convex combinations of the possible winners."""

    bend = float("inf")

    def value(self, u: Tensor) -> Tensor:
        """See ``Gate``."""
        return u.amax(dim=1)

    def slope(self, u: Tensor) -> Tensor:
        """See ``Gate``; the first of equals, as in PyTorch."""
        winner = u.argmax(dim=1, keepdim=True)
        return torch.zeros_like(u).scatter(1, winner, 1.0)

    def slopes(self, u: Range) -> Range:
        """An entry may win unless another is surely larger, and must if all others are smaller."""
        may = u.high >= u.low.amax(dim=1, keepdim=True)
        alone = may.sum(dim=1, keepdim=True) == 1
        return Range((may & alone).to(u.low.dtype), may.to(u.low.dtype))

    def bends(self, u: Range) -> Tensor:
        """Infinite where the winner is not certain."""
        may = u.high >= u.low.amax(dim=1, keepdim=True)
        return torch.where(may.sum(dim=1) > 1, torch.inf, 0.0).to(u.low.dtype)
