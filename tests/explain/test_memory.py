"""How much a method holds in memory: a setting, and what is left when memory ends."""

from __future__ import annotations

import pytest

import trompe
from trompe.errors import UsageError


def test_the_chunk_is_halved_from_what_is_held() -> None:
    method = trompe.explainer("integrated_grad", steps=10)
    chunks = []
    while (less := method.lighter()) is not None:
        method = less
        chunks.append(method.chunk)
    assert chunks == [5, 2, 1]


def test_a_wrapper_is_halved_before_what_it_wraps() -> None:
    base = trompe.explainer("integrated_grad", steps=4, chunk=2)
    method = trompe.explainer("smoothgrad", base=base, samples=2)
    first = method.lighter()
    assert (first.chunk, first.base.chunk) == (1, 2)
    second = first.lighter()
    assert (second.chunk, second.base.chunk) == (1, 1)
    assert second.lighter() is None


@pytest.mark.parametrize("name", ["gradient", "lrp", "grad_cam"])
def test_a_method_of_one_pass_has_nothing_to_halve(name: str) -> None:
    method = trompe.explainer(name)
    assert method.lighter() is None
    assert method.holding(3) == method


def test_holding_goes_for_all_that_is_wrapped() -> None:
    inner = trompe.explainer("smoothgrad", base=trompe.explainer("integrated_grad"))
    held = trompe.explainer("beta_smoothing", base=inner).holding(3)
    assert held.base.chunk == held.base.base.chunk == 3
    with pytest.raises(UsageError, match="chunk"):
        inner.holding(0)
