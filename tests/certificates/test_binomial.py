"""Bounds of probabilities and means from samples: against SciPy, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, binomtest

from trompe.certificates.binomial import (
    deviation,
    divergence,
    holm,
    lower_bound,
    mean_above,
    surely_above,
    surely_below,
    upper_bound,
)


@pytest.mark.parametrize("hits", [0, 1, 37, 99, 100])
def test_clopper_and_pearson_as_in_scipy(hits: int) -> None:
    alpha = 0.013
    interval = binomtest(hits, 100).proportion_ci(1 - 2 * alpha, method="exact")
    counts = np.array([hits])
    assert float(lower_bound(counts, 100, alpha)[0]) == pytest.approx(interval.low, rel=1e-7)
    assert float(upper_bound(counts, 100, alpha)[0]) == pytest.approx(interval.high, rel=1e-7)


@pytest.mark.parametrize("truth", [0.003, 0.2, 0.5, 0.93])
def test_clopper_and_pearson_is_wrong_as_rarely_as_it_says(truth: float) -> None:
    """Exactly, by summing over all outcomes; and by no more than the steps of the counts."""
    n, alpha = 200, 0.05
    hits = np.arange(n + 1)
    chance = binom.pmf(hits, n, truth)
    for wrong in (
        chance[lower_bound(hits, n, alpha) > truth].sum(),
        chance[upper_bound(hits, n, alpha) < truth].sum(),
    ):
        assert wrong <= alpha
    if truth in (0.2, 0.5):
        assert chance[lower_bound(hits, n, alpha) > truth].sum() > alpha / 2


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.3, 0.9])
def test_the_mean_bound_solves_its_equation(mean: float) -> None:
    n, alpha = 500, 0.002

    def gap(m: float) -> float:
        first = 0.0 if mean == 0 else mean * math.log(mean / m)
        return first + (1 - mean) * math.log((1 - mean) / (1 - m)) - math.log(1 / alpha) / n

    root = brentq(gap, mean + 1e-12, 1 - 1e-12, xtol=1e-14)
    assert mean_above(mean, n, alpha) == pytest.approx(root, rel=1e-7)
    assert divergence(mean, root) == pytest.approx(math.log(1 / alpha) / n, rel=1e-6)


@pytest.mark.parametrize("truth", [0.01, 0.1, 0.5])
def test_the_mean_bound_is_wrong_rarely_for_coins(truth: float) -> None:
    """Coins are its worst case: exactly, by summing over all outcomes."""
    n, alpha = 300, 0.05
    hits = np.arange(n + 1)
    wrong = [mean_above(k / n, n, alpha) < truth for k in hits]
    found = binom.pmf(hits, n, truth)[wrong].sum()
    assert alpha / 12 < found <= alpha


def test_the_deviation_of_a_mean_is_exceeded_rarely() -> None:
    """Values 0, 1, -1 of known variance: the share that exceeds the bound, by simulation."""
    generator = np.random.default_rng(0)
    for variance in (0.01, 0.2, 1.0):
        n, alpha, runs = 100, 0.1, 20_000
        size = generator.binomial(n, variance, runs)
        mean = (2 * generator.binomial(size, 0.5) - size) / n
        wrong = (np.abs(mean) > deviation(variance, n, alpha)).mean()
        assert wrong <= alpha
        assert wrong > alpha / 60
    s = math.log(2 / 0.1)
    assert deviation(0.2, 100, 0.1) == pytest.approx(math.sqrt(0.4 * s / 100) + s / 300, rel=1e-8)


def test_p_values_are_tails() -> None:
    hits = np.array([0, 30, 50, 100])
    for k, above, below in zip(
        hits, surely_above(hits, 100, 0.4), surely_below(hits, 100, 0.4), strict=True
    ):
        assert above == pytest.approx(binomtest(k, 100, 0.4, alternative="greater").pvalue)
        assert below == pytest.approx(binomtest(k, 100, 0.4, alternative="less").pvalue)


def test_holm_step_by_step() -> None:
    p = np.array([[0.04, 0.001, 0.2], [0.012, 0.0165, 0.9]])
    # 0.05 / 6, / 5 and / 4 let 0.001 pass, and not 0.012 > 0.01; Bonferroni would stop there too.
    assert holm(p, 0.05).tolist() == [[False, True, False], [False, False, False]]
    p[0, 1], p[1, 0] = 0.008, 0.0099
    assert holm(p, 0.05).tolist() == [[False, True, False], [True, False, False]]
    assert holm(np.zeros(4), 0.05).all()
    # 0.05 / 5 for the smallest of five, 0.05 / 4 for the next.
    assert holm(np.array([1, 0.0099, 1, 1, 1.0]), 0.05).tolist() == [False, True] + 3 * [False]
    assert not holm(np.array([1, 0.0101, 1, 1, 1.0]), 0.05).any()
    assert holm(np.array([1e-3, 0.0124, 1, 1, 1.0]), 0.05).sum() == 2
    assert holm(np.array([1e-3, 0.0126, 1, 1, 1.0]), 0.05).sum() == 1


def test_holm_is_wrong_rarely_with_all_hypotheses_true() -> None:
    generator = np.random.default_rng(1)
    wrong = np.mean([holm(generator.random(20), 0.1).any() for _ in range(4000)])
    assert 0.07 < wrong < 0.12
