"""However a network is written: its smoothing, its record and its maps are those of its twin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import trompe
from trompe.engine import record, smooth
from trompe.errors import UnsupportedOp

sys.path.insert(0, str(Path(__file__).parent))
from odd_networks import CHOICES, Odd, has_kinks, has_only_relus

TARGET = torch.tensor([0, 2])
Steps = list[tuple[str, str]]


class GuidedReLU(torch.autograd.Function):
    """The oracle: a ReLU that sends back ``relu(R) [z > 0]``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad.clamp(min=0) * (z > 0)


def gradient(net: Odd, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(net(x)[[0, 1], TARGET].sum(), x)[0]


def same(found: Tensor, expected: Tensor, relative: float) -> None:
    """Equal up to a part of the largest value; both may be zero."""
    size = float(expected.detach().abs().max())
    assert float((found - expected).detach().abs().max()) <= relative * size + 1e-12


def check(steps: Steps, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    odd, plain = Odd(steps, seed).eval(), Odd(steps, seed, plain=True).eval()
    expected = plain(x)
    same(odd(x), expected, 1e-12)  # the twin is one

    same(smooth(odd, beta=1e7, pooling=1.0)(x), expected, 1e-5)
    soft = Odd(steps, seed, plain=True, relu=lambda z: F.softplus(z, beta=3, threshold=60)).eval()
    found = smooth(odd, beta=3.0)(x)
    if all(kind != "other" for kind, _ in steps):
        same(found, soft(x), 1e-9)
    elif has_kinks(steps) and float(expected.abs().max()) > 1e-6:
        assert not torch.allclose(found, expected, rtol=1e-9, atol=1e-12)

    _, logits = record(odd, x.clone().requires_grad_(True))
    same(logits, expected, 1e-12)
    # PyTorch's derivative of a hard sigmoid holds 1 / 6 in single precision; a record's does not.
    exact = 1e-7 if ("other", "gate") in steps else 1e-9
    same(trompe.explainer("gradient")(odd, x, TARGET), gradient(plain, x), exact)

    guided = trompe.explainer("guided_backprop")
    if all(kind != "other" for kind, _ in steps):
        oracle = Odd(steps, seed, plain=True, relu=GuidedReLU.apply)
        if bool((expected[[0, 1], TARGET] > 0).all()):  # the method starts from the magnitude
            same(guided(odd, x, TARGET), gradient(oracle, x), 1e-9)
    elif not has_only_relus(steps):
        with pytest.raises(UnsupportedOp, match="is no ReLU"):
            guided(odd, x, TARGET)


networks = given(
    steps=st.lists(st.sampled_from(CHOICES), min_size=1, max_size=5),
    seed=st.integers(0, 2**20),
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@networks
def test_some(steps: Steps, seed: int) -> None:
    check(steps, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@networks
def test_thousands(steps: Steps, seed: int) -> None:
    check(steps, seed)


@pytest.mark.parametrize("choice", CHOICES, ids=":".join)
def test_each_step_alone(choice: tuple[str, str]) -> None:
    check([choice], 1)


def test_a_choice_that_is_not_taken_may_be_huge() -> None:
    """Found by the thousands: ``expm1(h)`` beside ``h`` where h is 39."""
    check([("layer", "residual"), ("layer", "residual"), ("other", "own elu")], 0)


def test_the_check_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spelling forgotten in the records is noticed."""
    from trompe.engine import reading

    monkeypatch.setitem(reading.READERS, torch.clip, lambda memory, *args, **kwargs: None)
    with pytest.raises((AssertionError, trompe.errors.TrompeError)):
        check([("relu", "clip"), ("relu", "relu")], 1)
