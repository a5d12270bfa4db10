"""Within ``DifferentiableGates`` a ReLU is what it is, and its gate has a derivative."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.tampering.gates import DifferentiableGates


def gradient_of(x: Tensor, bias: Tensor) -> Tensor:
    """``d relu(2 x + b) / d x``, which is 2 or 0."""
    (found,) = torch.autograd.grad(F.relu(2 * x + bias), x, create_graph=True)
    return found


@pytest.mark.parametrize("at", [-0.4, 0.3, 2.0])
def test_a_gate_has_the_derivative_of_a_sigmoid(at: float) -> None:
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    with DifferentiableGates(3.0):
        found = gradient_of(x, bias)
    z = 2 * at + 0.1
    assert float(found) == (2.0 if z > 0 else 0.0)
    (second,) = torch.autograd.grad(found, bias)
    s = 1 / (1 + math.exp(-3 * z))
    assert float(second) == pytest.approx(2 * 3 * s * (1 - s), rel=1e-12)
    plain = gradient_of(x, bias)
    (none,) = torch.autograd.grad(plain, bias, allow_unused=True, materialize_grads=True)
    assert float(none) == 0


@pytest.mark.parametrize("inplace", [False, True])
def test_outputs_and_maps_are_those_of_the_network(inplace: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 9), nn.ReLU(inplace), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2)
    )
    x = torch.randn(7, 5, requires_grad=True)
    plain = net(x)
    with DifferentiableGates(5.0):
        found = net(x)
    assert torch.equal(plain, found)
    grads = [torch.autograd.grad(out[:, 0].sum(), x)[0] for out in (plain, found)]
    assert torch.equal(*grads)


def test_a_tensor_rectified_in_place_is() -> None:
    z = torch.tensor([-1.0, 2.0])
    with DifferentiableGates(5.0):
        F.relu(z, inplace=True)
    assert z.tolist() == [0.0, 2.0]
    z = torch.tensor([-1.0, 2.0])
    with DifferentiableGates(5.0):
        z.relu_()
    assert z.tolist() == [0.0, 2.0]
