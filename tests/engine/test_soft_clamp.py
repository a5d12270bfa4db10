"""The smooth clamp as one function, against the two softplus that it is made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.soft_clamp import soft_clamp

BOUNDS = [(0.0, 6.0), (-1.0, 1.0), (-0.5, 0.1)]


def by_softplus(z: Tensor, beta: float, low: float, high: float) -> Tensor:
    first, second = (F.softplus(z - end, beta=beta, threshold=1e9) for end in (low, high))
    return low + first - second


def points(dtype: torch.dtype) -> Tensor:
    return torch.linspace(-9, 9, 181).to(dtype)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
@pytest.mark.parametrize("beta", [0.3, 3.0, 40.0])
def test_value_and_three_derivatives_are_those_of_two_softplus(
    beta: float, low: float, high: float
) -> None:
    ours, theirs = (points(torch.float64).requires_grad_(True) for _ in range(2))
    found, expected = soft_clamp(ours, beta, low, high), by_softplus(theirs, beta, low, high)
    for order in range(4):
        size = float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * max(size, 100.0))
        if order < 3:
            (found,) = torch.autograd.grad(found.sum(), ours, create_graph=True)
            (expected,) = torch.autograd.grad(expected.sum(), theirs, create_graph=True)
    # The derivatives that are compared are not all next to nothing.
    assert float(expected.detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("low", "high"), BOUNDS)
@pytest.mark.parametrize("beta", [0.3, 40.0, torch.tensor(3.0)])
def test_single_precision_is_near_to_double(beta: float | Tensor, low: float, high: float) -> None:
    z = points(torch.float32).requires_grad_(True)
    value = soft_clamp(z, beta, low, high)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    exact = points(torch.float64).requires_grad_(True)
    precise = by_softplus(exact, float(beta), low, high)
    (steep,) = torch.autograd.grad(precise.sum(), exact, create_graph=True)
    (curved,) = torch.autograd.grad(steep.sum(), exact)
    for found, expected, scale in ((value, precise, 10.0), (slope, steep, 1.0)):
        assert float((found - expected).detach().abs().max()) < 1e-6 * scale
    assert float((bend - curved).abs().max()) < 2e-6 * float(beta) ** 2


def test_the_limit_is_the_clamp() -> None:
    z = torch.cat([points(torch.float32), torch.tensor([-1e4, 1e4])])
    assert float((soft_clamp(z, 1e5, 0.0, 6.0) - z.clamp(0, 6)).abs().max()) < 2e-5
