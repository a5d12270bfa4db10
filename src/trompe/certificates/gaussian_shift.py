"""How far an expectation can move when the centre of Gaussian noise moves: sharp, in closed form.

P is the law of ``x + e`` with e ~ N(0, sigma^2 I), Q that of ``x' + e``, ``|x' - x|_2 = r sigma``.
Their likelihood ratio is ``L = dQ/dP = exp(r t - r^2 / 2)``, t standard normal under P, so that the
expectation of f under Q is ``E f L`` under P, and for an interval of t

    E[1; a < t < b] = Phi(b) - Phi(a),        E[L; a < t < b] = Phi(b - r) - Phi(a - r),
    E[L^2; a < t < b] = exp(r^2) (Phi(b - 2r) - Phi(a - 2r)).

Whatever is minimised below over a multiplier is a valid bound for every value of it: the search for
the best one needs no accuracy. Proofs are in ``docs/certificates.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from trompe.certificates.upper import WIDEN

_FAR = 20.0
"""Beyond so many sigma the squared likelihood ratio overflows, and nothing is known anyway."""

Floats = NDArray[np.float64]


def least_after(low: Floats, r: float) -> Floats:
    """At least the probability under Q of events that have at least ``low`` under P."""
    return np.asarray(ndtr(ndtri(low) - r) / WIDEN)


def most_after(high: Floats, r: float) -> Floats:
    """At most the probability under Q of events that have at most ``high`` under P."""
    return np.minimum(ndtr(ndtri(high) + r) * WIDEN, 1.0)


def total_variation(r: float) -> float:
    """``E|L - 1| / 2 = 2 Phi(r / 2) - 1``: the most the probability of any event can change."""
    return WIDEN * math.erf(r / (2 * math.sqrt(2)))


def excess(r: float, y: float) -> float:
    """``E(|L - 1| - y)+`` for y not negative."""
    if r == 0:
        return 0.0
    above = _crossing(r, 1 + y)
    found = ndtr(r - above) - (1 + y) * ndtr(-above)
    if y < 1:
        below = _crossing(r, 1 - y)
        found += (1 - y) * ndtr(below) - ndtr(below - r)
    return max(float(found), 0.0)


def weighted_shift(high: float, r: float) -> float:
    """The most ``E 1_S |L - 1|`` over events S of probability at most ``high``.

    For every y it is at most ``y high + E(|L - 1| - y)+``, with equality where
    ``P(|L - 1| > y) = high`` (Neyman and Pearson).
    """
    if r == 0:
        return 0.0

    def dual(y: float) -> float:
        return y * high + excess(r, y)

    least = min(_minimum(dual), dual(0.0))
    return WIDEN * least


def projected_shift(variance: float, r: float) -> float:
    """The most ``E g L`` over functions g with ``E g = 0``, ``E g^2 <= variance``, ``|g| <= 1``.

    ``E g L = E g (L - 1) <= mu variance + E max_{|s| <= 1} (s |L - 1| - mu s^2)`` for every mu > 0:
    the maximum is ``y^2 / (4 mu)`` where ``y = |L - 1| <= 2 mu`` and ``y - mu`` beyond. For small
    variances it is about ``sqrt(variance (exp(r^2) - 1))``, the bound of Cauchy and Schwarz; and it
    is never above ``E L = 1``.
    """
    if r == 0 or variance <= 0:
        return 0.0
    if r > _FAR:
        return 1.0

    def dual(mu: float) -> float:
        y = 2 * mu
        b = _crossing(r, 1 + y)
        a = _crossing(r, 1 - y) if y < 1 else -math.inf
        # E[(L - 1)^2; a < t < b], and E(|L - 1| - mu) outside: the excess over y, and y - mu of it.
        one = ndtr(b) - ndtr(a)
        ratio = ndtr(b - r) - ndtr(a - r)
        square = math.exp(r * r) * (ndtr(b - 2 * r) - ndtr(a - 2 * r))
        inside = max(float(square - 2 * ratio + one), 0.0)
        return mu * variance + inside / (4 * mu) + excess(r, y) + mu * float(1 - one)

    return WIDEN * min(_minimum(dual), math.sqrt(variance * math.expm1(r * r)), 1.0)


def _crossing(r: float, level: float) -> float:
    """The t at which L passes a positive level."""
    return (math.log(level) + r * r / 2) / r


def _minimum(dual: Callable[[float], float]) -> float:
    """The smallest value of a unimodal function of a positive multiplier, from above."""
    low, high, ratio = math.log(1e-9), math.log(1e9), (math.sqrt(5) - 1) / 2
    best = math.inf
    for _ in range(90):
        one, other = high - ratio * (high - low), low + ratio * (high - low)
        first, second = dual(math.exp(one)), dual(math.exp(other))
        best = min(best, first, second)
        low, high = (low, other) if first <= second else (one, high)
    return best
