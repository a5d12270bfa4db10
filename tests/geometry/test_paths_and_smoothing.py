"""Paths on the surface, Theorem 2, and the measurements of beta-smoothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.defences import choose_beta
from trompe.errors import UsageError
from trompe.geometry.noise import (
    beta_of_sigma,
    draw_noise,
    noise_density,
    sigma_of_beta,
    theorem_2,
)
from trompe.geometry.paths import path_report
from trompe.geometry.smoothing import distance_to_relu, recovery


class Sphere(nn.Module):
    """Its surfaces of constant score are spheres: geodesics are great circles."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(1, keepdim=True)


def test_the_path_on_a_sphere_is_a_great_circle() -> None:
    x = torch.tensor([[2.0, 0.0, 0.0]]).double()
    x_adv = torch.tensor([[0.0, 2.1, 0.0]]).double()
    (found,) = path_report(Sphere(), x, x_adv, torch.tensor([0]), beta=1.0, points=33)
    assert found.moved == pytest.approx(0.1, abs=1e-6)
    assert found.length == pytest.approx(math.pi, rel=2e-3)
    assert found.deviation < 1e-9
    # On a sphere the normal turns all along: the integral is the angle.
    assert found.turned == pytest.approx(math.sqrt(2))
    assert found.turning == pytest.approx(math.pi / 2, rel=2e-3)


@pytest.mark.parametrize("beta", [0.8, 3.0])
def test_the_normal_turns_at_most_by_the_integral(beta: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(3, 8).double()
    x_adv = x + 0.3 * torch.randn(3, 8).double()
    for one in path_report(net.double(), x, x_adv, torch.tensor([0, 1, 2]), beta=beta):
        assert one.turned <= one.turning * (1 + 1e-6)
        assert one.turned_straight <= one.turning_straight * (1 + 1e-6)
        assert one.length >= one.straight - one.moved
        assert one.deviation < 1e-9 < one.deviation_straight


@pytest.mark.parametrize("beta", [0.8, 5.0])
def test_theorem_2(beta: float) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(6), torch.randn(6) / 3
    found = theorem_2(weight, x, beta, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.smoothed, found.integrated, atol=1e-4)
    assert ((found.smoothed - found.averaged).abs() <= 4 * found.error).all()


def test_the_noise_of_theorem_2() -> None:
    grid = torch.linspace(-80, 80, 100_001).double()
    density = noise_density(grid, 0.8)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1)
    literal = 0.8 / (torch.exp(0.4 * grid) + torch.exp(-0.4 * grid)) ** 2
    assert torch.allclose(density, literal)
    drawn = draw_noise(0.8, 100_000, generator=torch.Generator().manual_seed(0))
    variance = float(torch.trapezoid(density * grid**2, grid))
    assert float(drawn.var()) == pytest.approx(variance, rel=0.03)
    # The paper's sigma is near the noise's own standard deviation.
    assert sigma_of_beta(0.8) == pytest.approx(math.sqrt(variance), rel=0.05)
    assert beta_of_sigma(sigma_of_beta(0.8, 2.0), 2.0) == pytest.approx(0.8)
    with pytest.raises(UsageError):
        sigma_of_beta(-1)


def _net() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4)
    )
    x = torch.randn(2, 3, 8, 8)
    return net.double(), x.double(), torch.tensor([1, 3])


def test_softplus_maps_approach_the_relu_map() -> None:
    net, x, target = _net()
    found = distance_to_relu(net, x, target, betas=(0.5, 5.0, 5000.0))
    assert (found.pcc[0] < found.pcc[2]).all()
    assert (found.pcc[2] > 0.999).all()
    assert found.mse.shape == found.ssim.shape == (3, 2)


def test_recovery_compares_with_both() -> None:
    net, x, target = _net()
    aim = trompe.heatmap(torch.rand(2, 3, 8, 8))
    found = recovery(net, x, x, target, aim, betas=(10.0, 1.0))
    assert torch.allclose(found.to_original.pcc, torch.ones(2, 2).double())
    assert (found.to_target.pcc < 0.9).all()


def test_the_choice_of_beta() -> None:
    net, x, target = _net()
    found = choose_beta(net, x, target, betas=(1.0, 100.0, 10.0), threshold=0.6, steps=20)
    assert found.betas == (100.0, 10.0, 1.0)
    assert found.chosen in found.betas
    assert found.curvature[0] > found.curvature[2]
    assert found.bound[0] > found.bound[2]
    assert all(b >= c for b, c in zip(found.bound, found.curvature, strict=True))
    for beta, share in zip(found.betas, found.faithful, strict=True):
        assert share >= 0.6 or beta < found.chosen or found.chosen == 100.0
