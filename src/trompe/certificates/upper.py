"""Numbers that are upper bounds and stay so: every operation rounds outward by itself.

A result of float64 arithmetic is off by half a unit in the last place (about 1.1e-16) for one
operation, and by at most the number of terms times that for a sum or a norm. ``Upper`` widens the
first by 4 units and the second by ``WIDEN``, which covers sums of a million terms ten times
over; what is left is a true upper bound, without a factor for each line of a formula.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WIDEN = 1 + 1e-9
"""Relative slack on norms and sums: float64 rounding is about 1e-13 of them."""
EPS = 2.3e-16
"""A little more than the distance of 1 from the next float64."""
_NEXT = 1 + 4 * EPS
"""Relative slack on one operation."""


class Upper:
    """Entries that are not negative and at least as large as the exact quantity they stand for.

    An infinite entry says that nothing is known. The exact quantity is always finite, so that 0
    times infinity is 0 here.

    Args:
        value: A number or a tensor, float64, not negative, not NaN.
    """

    __slots__ = ("value",)

    def __init__(self, value: Tensor | float) -> None:
        self.value = torch.as_tensor(value, dtype=torch.float64)

    def __repr__(self) -> str:
        return f"Upper({self.value})"

    def __float__(self) -> float:
        return float(self.value)

    def __add__(self, other: Upper) -> Upper:
        """The sum."""
        return Upper((self.value + other.value) * _NEXT)

    def __mul__(self, other: Upper | float) -> Upper:
        """The product, entry by entry; a plain number counts as exact."""
        one = self.value
        two = other.value if isinstance(other, Upper) else torch.tensor(other, dtype=torch.float64)
        return Upper(torch.where((one == 0) | (two == 0), 0.0, one * two * _NEXT))

    __rmul__ = __mul__

    def over(self, below: Tensor) -> Upper:
        """The quotient by exact numbers, not negative; 0 where the numerator is 0.

        Where the divisor is 0 it is truly infinite: ask ``finite`` before multiplying by it.
        """
        return Upper(torch.where(self.value > 0, self.value / below * _NEXT, 0.0))

    def square(self) -> Upper:
        """The square."""
        return self * self

    def sqrt(self) -> Upper:
        """The square root."""
        return Upper(self.value.sqrt() * _NEXT)

    def cut(self, *others: Upper | Tensor | float) -> Upper:
        """The smallest of several bounds of one quantity, entry by entry."""
        least = self.value
        for other in others:
            bound = other.value if isinstance(other, Upper) else torch.as_tensor(other)
            least = torch.minimum(least, bound.to(least.dtype))
        return Upper(least)

    def norm(self) -> Upper:
        """The l2 norm of all entries."""
        return Upper(self.value.norm() * WIDEN)

    def largest(self) -> Upper:
        """The largest entry."""
        return Upper(self.value.max())

    def mapped(self, nonnegative: Callable[[Tensor], Tensor]) -> Upper:
        """The image under a linear map without negative coefficients."""
        return Upper(nonnegative(self.value) * WIDEN)

    def finite(self) -> bool:
        """Whether every entry says something."""
        return bool(torch.isfinite(self.value).all())
