"""Numbers that round outward, against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from trompe.certificates.upper import Upper

torch.manual_seed(0)
ONE, OTHER = torch.rand(200).double() * 3, torch.rand(200).double() / 7


def exact(values: torch.Tensor) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def test_every_operation_is_above_the_exact_result_and_close_to_it() -> None:
    pairs = list(zip(exact(ONE), exact(OTHER), strict=True))
    cases = [
        (Upper(ONE) + Upper(OTHER), [a + b for a, b in pairs]),
        (Upper(ONE) * Upper(OTHER), [a * b for a, b in pairs]),
        (Upper(ONE) * 0.1, [a * Fraction(0.1) for a, _ in pairs]),
        (Upper(ONE).over(OTHER), [a / b for a, b in pairs]),
        (Upper(ONE).square(), [a * a for a, _ in pairs]),
    ]
    for found, truth in cases:
        for bound, value in zip(exact(found.value), truth, strict=True):
            assert value < bound <= value * (1 + Fraction(1, 10**14))
    for bound, value in zip(exact(Upper(ONE).sqrt().value), exact(ONE), strict=True):
        assert value < bound * bound <= value * (1 + Fraction(1, 10**14))


def test_sums_and_norms_are_above_the_exact_result() -> None:
    square = sum(a * a for a in exact(ONE))
    found = Fraction(float(Upper(ONE).norm()))
    assert square < found * found <= square * (1 + Fraction(3, 10**9))
    total = sum(exact(ONE))
    found = Fraction(float(Upper(ONE).mapped(lambda value: value.sum())))
    assert total < found <= total * (1 + Fraction(2, 10**9))


def test_what_is_unknown_stays_so_and_nothing_times_it_is_nothing() -> None:
    unknown = Upper(math.inf)
    assert not (unknown + Upper(1.0)).finite()
    assert not (unknown * 2.0).finite()
    assert float(unknown * Upper(0.0)) == 0
    assert float(unknown.cut(3.0)) == 3
    assert float(Upper(0.0).over(torch.tensor(0.0))) == 0
    assert not Upper(1.0).over(torch.tensor(0.0)).finite()
