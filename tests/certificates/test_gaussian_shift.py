"""How far expectations move with the noise's centre: closed forms against integrals on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from trompe.certificates.gaussian_shift import (
    excess,
    least_after,
    most_after,
    projected_shift,
    total_variation,
    weighted_shift,
)

T = np.linspace(-14, 14, 200_001)
WEIGHT = norm.pdf(T) * (T[1] - T[0])
RADII = [0.05, 0.25, 1.0, 2.0]


def ratio(r: float) -> np.ndarray:
    return np.exp(r * T - r * r / 2)


@pytest.mark.parametrize("r", RADII)
def test_total_variation_and_excess_are_integrals(r: float) -> None:
    away = np.abs(ratio(r) - 1)
    assert total_variation(r) == pytest.approx((away * WEIGHT).sum() / 2, rel=1e-5)
    for y in (0.0, 0.1, 0.7, 1.5):
        truth = (np.maximum(away - y, 0) * WEIGHT).sum()
        assert excess(r, y) == pytest.approx(truth, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("r", RADII)
def test_half_spaces_are_the_worst_events(r: float) -> None:
    """The chance of ``t <= a`` after the shift, exactly; no other event of that chance loses so."""
    for p in (0.02, 0.5, 0.97):
        edge = norm.ppf(p)
        assert least_after(np.array(p), r) == pytest.approx(norm.cdf(edge - r), rel=1e-8)
        assert most_after(np.array(p), r) == pytest.approx(norm.cdf(edge + r), rel=1e-8)
        most = (ratio(r) * WEIGHT)[edge >= T].sum()
        assert float(least_after(np.array(p), r)) <= most * (1 + 1e-3)
    assert float(least_after(np.array(0.0), r)) == 0
    assert float(most_after(np.array(1.0), r)) == 1


@pytest.mark.parametrize("r", RADII)
@pytest.mark.parametrize("high", [1e-3, 0.1, 0.6, 1.0])
def test_the_worst_event_for_the_ratio_holds_its_largest_values(r: float, high: float) -> None:
    away = np.abs(ratio(r) - 1)
    order = np.argsort(-away)
    mass = np.cumsum(WEIGHT[order])
    truth = (away * WEIGHT)[order][mass <= high].sum()
    found = weighted_shift(high, r)
    assert truth <= found * (1 + 1e-4) + 1e-5
    assert found <= truth * (1 + 1e-4) + 2e-5


@pytest.mark.parametrize("r", RADII)
@pytest.mark.parametrize("variance", [1e-4, 0.01, 0.1, 0.6])
def test_the_worst_projection_is_attained(r: float, variance: float) -> None:
    """The function ``clip((L - 1) / (2 mu), -1, 1)`` with that second moment, found by halving."""
    away = ratio(r) - 1
    low, high = 1e-9, 1e9
    for _ in range(70):
        mu = math.sqrt(low * high)
        g = np.clip(away / (2 * mu), -1, 1)
        low, high = (mu, high) if (g * g * WEIGHT).sum() > variance else (low, mu)
    truth = min((g * away * WEIGHT).sum(), 1.0)  # E g L is at most E L
    found = projected_shift(variance, r)
    assert truth * (1 - 1e-5) <= found <= truth * (1 + 1e-4)
    assert found <= math.sqrt(variance * math.expm1(r * r)) * (1 + 1e-8)


def test_bounds_grow_with_the_radius_and_are_0_without() -> None:
    radii = np.linspace(0.01, 3, 60)
    for bound in (
        total_variation,
        lambda r: weighted_shift(0.2, r),
        lambda r: projected_shift(0.05, r),
    ):
        values = [bound(r) for r in radii]
        assert (np.diff(values) >= -1e-9).all()
        assert bound(0.0) == 0


@pytest.mark.parametrize("r", [6.0, 19.0, 100.0, 1e6])
def test_far_away_everything_may_happen(r: float) -> None:
    assert total_variation(r) == pytest.approx(1, abs=0.01)
    assert weighted_shift(0.1, r) == pytest.approx(1.1, abs=0.02)
    assert projected_shift(0.9, r) == pytest.approx(1, abs=0.02)
    assert float(least_after(np.array(0.999), r)) < 0.01
    assert float(most_after(np.array(0.001), r)) > 0.99
