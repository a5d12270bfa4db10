"""Shares of images and their intervals, against binomial sums in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from trompe.errors import UsageError
from trompe.robustness.shares import Share, share


def at_least(count: int, n: int, p: float) -> float:
    """The chance of ``count`` or more of ``n``, each with chance ``p``, summed up exactly."""
    one = Fraction(p)
    terms = (math.comb(n, k) * one**k * (1 - one) ** (n - k) for k in range(count, n + 1))
    return float(sum(terms, Fraction(0)))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("count", "n"), [(1, 2), (3, 10), (9, 10), (17, 40), (1, 100), (12, 13)])
def test_each_end_leaves_half_of_the_rest_in_its_tail(
    count: int, n: int, confidence: float
) -> None:
    found = share(count, n, confidence)
    half = (1 - confidence) / 2
    assert found.value == count / n
    assert found.confidence == confidence
    assert 0 < found.low < found.value < found.high < 1
    # Were the truth the lower end, so many or more had half of what is left; and so above.
    assert at_least(count, n, found.low) == pytest.approx(half, rel=1e-9)
    assert 1 - at_least(count + 1, n, found.high) == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, 100])
def test_none_and_all_have_one_end_only(n: int) -> None:
    none, all_of_them = share(0, n), share(n, n)
    assert (none.low, all_of_them.high) == (0.0, 1.0)
    assert (none.confidence, all_of_them.confidence) == (0.95, 0.95)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / n))
    assert all_of_them.low == pytest.approx(0.025 ** (1 / n))
    assert (none.value, all_of_them.value) == (0.0, 1.0)


def test_of_nothing_nothing_is_known() -> None:
    found = share(0, 0)
    assert (found.low, found.high) == (0.0, 1.0)
    assert math.isnan(found.value)


@pytest.mark.parametrize(
    ("count", "n", "confidence"),
    [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 1.0), (1, 3, -0.5), (1, 3, 1.5)],
)
def test_what_is_no_share_is_refused(count: int, n: int, confidence: float) -> None:
    with pytest.raises(UsageError, match=r"share|confidence"):
        share(count, n, confidence)


def test_in_words() -> None:
    words = str(share(17, 40))
    assert words.startswith("17 of 40 (42%; 95 % interval 27% to 59%)")
    assert Share(1, 2, 0.1, 0.9).confidence == 0.95
