"""What counts of independent trials say of a probability, with a stated chance of being wrong."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import binom

from trompe.certificates.upper import WIDEN

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def lower_bound(hits: Counts, samples: int, alpha: float | Floats) -> Floats:
    """Clopper and Pearson: below the probability of each event, wrong with chance ``alpha`` each.

    Args:
        hits: How often the event happened, 0..samples.
        samples: Independent trials.
        alpha: Chance of being wrong, for one event or for each.
    """
    found = betaincinv(np.maximum(hits, 1), samples - hits + 1, alpha)
    return np.where(hits == 0, 0.0, found / WIDEN)


def upper_bound(hits: Counts, samples: int, alpha: float) -> Floats:
    """Clopper and Pearson: above the probability of each event; see ``lower_bound``."""
    return np.asarray(1 - lower_bound(samples - hits, samples, alpha))


def mean_above(mean: float, samples: int, alpha: float) -> float:
    """Above the expectation of a quantity within 0..1, given its mean over independent samples.

    By Chernoff's bound (Hoeffding 1963, eq. 2.1) the mean falls to y or below with chance
    ``exp(-n KL(y, m))`` at most, for y < m; so m is at most the value at which
    ``KL(mean, m) = ln(1 / alpha) / n``.
    """
    most = math.log(1 / alpha) / samples
    low, high = min(max(mean, 0.0), 1.0), 1.0
    if low >= 1:
        return 1.0
    for _ in range(80):
        middle = (low + high) / 2
        if divergence(mean, middle) > most:
            high = middle
        else:
            low = middle
    return min(high * WIDEN, 1.0)


def divergence(one: float, other: float) -> float:
    """Kullback and Leibler's divergence of two coins, for ``0 <= one < 1``, ``0 < other <= 1``."""
    if other >= 1:
        return math.inf
    first = one * math.log(one / other) if one > 0 else 0.0
    return first + (1 - one) * math.log((1 - one) / (1 - other))


def deviation(variance: float, samples: int, alpha: float) -> float:
    """Above ``|mean|`` of independent samples of expectation 0 within -1..1; wrong with ``alpha``.

    Bernstein's inequality, both sides (Boucheron, Lugosi and Massart 2013, Corollary 2.11):
    ``sqrt(2 variance s / n) + s / (3 n)`` with ``s = ln(2 / alpha)``.
    """
    s = math.log(2 / alpha)
    return WIDEN * (math.sqrt(2 * variance * s / samples) + s / (3 * samples))


def surely_above(hits: Counts, samples: int, threshold: float) -> Floats:
    """The p-values of "this event has at most probability ``threshold``"."""
    return np.asarray(binom.sf(hits - 1, samples, threshold))


def surely_below(hits: Counts, samples: int, threshold: float) -> Floats:
    """The p-values of "this event has at least probability ``threshold``"."""
    return np.asarray(binom.cdf(hits, samples, threshold))


def holm(p: Floats, alpha: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected, any of them wrongly with chance ``alpha`` at most.

    Holm 1979: in rising order of p-values, as long as the i-th (from 0) of m is at most
    ``alpha / (m - i)``.
    """
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")
    passed = flat[order] <= alpha / (len(flat) - np.arange(len(flat)))
    count = len(flat) if passed.all() else int(np.argmin(passed))
    rejected = np.zeros(len(flat), dtype=bool)
    rejected[order[:count]] = True
    return rejected.reshape(p.shape)
