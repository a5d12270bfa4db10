"""Principal curvatures against closed forms and dense eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import ExplanationError, UsageError
from trompe.geometry import principal_curvatures


class Surface(nn.Module):
    """A score given by a formula, as the only class."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x).unsqueeze(1)


@pytest.mark.parametrize("size", [3, 40, 200])  # dense, dense, Lanczos
def test_sphere(size: int) -> None:
    sphere = Surface(lambda x: x.square().sum(1))
    x = torch.randn(2, size, dtype=torch.float64)
    found = principal_curvatures(sphere, x, k=2)
    expected = -1 / x.norm(dim=1, keepdim=True)
    assert torch.allclose(found.values, expected.expand(-1, 2), atol=1e-10)
    assert found.converged.all()


@pytest.mark.parametrize("size", [6, 120])
def test_cylinder(size: int) -> None:
    """A circle times a flat space: one curvature -1/R, all others 0."""
    cylinder = Surface(lambda x: x[:, :2].square().sum(1))
    x = torch.randn(3, size, dtype=torch.float64)
    found = principal_curvatures(cylinder, x, k=3)
    radius = x[:, :2].norm(dim=1)
    assert torch.allclose(found.values[:, 0], -1 / radius, atol=1e-10)
    assert found.values[:, 1:].abs().max() < 1e-10


@pytest.mark.parametrize("size", [5, 90])
def test_quadric(size: int) -> None:
    """At the pole of ``sum a_i x_i^2 + x_0`` the curvatures are ``-2 a_i``."""
    a = torch.linspace(-0.9, 2, size - 1, dtype=torch.float64)
    quadric = Surface(lambda x: x[:, 0] + (a * x[:, 1:].square()).sum(1))
    found = principal_curvatures(quadric, torch.zeros(1, size, dtype=torch.float64), k=3)
    expected = sorted((-2 * a).tolist(), key=abs, reverse=True)[:3]
    assert torch.allclose(found.values[0], torch.tensor(expected).double(), atol=1e-8)


@pytest.mark.parametrize("beta", [0.8, 10.0])
def test_a_network_against_dense_eigenvalues(beta: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(),
        nn.Linear(8, 3),
    ).double()  # fmt: skip
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    target = torch.tensor([2, 0])
    found = principal_curvatures(net, x, target, k=4, beta=beta, tolerance=1e-8)
    assert found.converged.all()
    assert found.directions.shape == (2, 4, 2, 8, 8)
    smooth = trompe.smooth(net, beta=beta, pooling=True)
    for i in range(2):

        def score(p: Tensor, i: int = i) -> Tensor:
            return smooth(p.view(1, 2, 8, 8))[0, target[i]]

        p = x[i].flatten()
        hessian = torch.autograd.functional.hessian(score, p)
        gradient = torch.autograd.functional.jacobian(score, p)
        n = gradient / gradient.norm()
        projector = torch.eye(len(p)).double() - torch.outer(n, n)
        values = torch.linalg.eigvalsh(-projector @ hessian @ projector / gradient.norm())
        order = values.abs().argsort(descending=True)[:4]
        assert torch.allclose(found.values[i], values[order], rtol=1e-6)
        assert (found.directions[i].flatten(1) @ n).abs().max() < 1e-10


def test_multiple_eigenvalues_are_found_by_lanczos() -> None:
    a = torch.cat([torch.full((3,), 4.0), torch.linspace(-1, 1, 96)]).double()
    quadric = Surface(lambda x: x[:, 0] + 0.5 * (a * x[:, 1:].square()).sum(1))
    found = principal_curvatures(quadric, torch.zeros(1, 100).double(), k=4)
    assert found.values[0, 0] == pytest.approx(-4, abs=1e-8)


def test_a_relu_network_is_flat() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    found = principal_curvatures(net, torch.randn(2, 4).double(), k=2)
    assert not found.values.any()


def test_the_values_of_a_batch_are_those_of_its_images() -> None:
    net = nn.Sequential(nn.Linear(60, 9), nn.Softplus(), nn.Linear(9, 2)).double()
    x = torch.randn(3, 60).double()
    together = principal_curvatures(net, x, k=3)
    alone = [principal_curvatures(net, one[None], k=3).values for one in x]
    assert torch.allclose(together.values, torch.cat(alone), rtol=1e-5)


def test_refusals() -> None:
    net = nn.Linear(4, 2).double()
    with pytest.raises(UsageError, match="k must be"):
        principal_curvatures(net, torch.zeros(1, 4).double(), k=4)
    flat = Surface(lambda x: x.sum(1) * 0)
    with pytest.raises(ExplanationError, match="zero"):
        principal_curvatures(flat, torch.ones(1, 4).double(), k=1)
