"""SmoothGrad beside beta-smoothing: Theorem 2 on whole networks, the matching noise, run times."""

from __future__ import annotations

import math

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import ExplanationError, UsageError
from trompe.geometry import (
    beta_of_sigma,
    compare_smoothings,
    first_layer_norm,
    matching_sigma,
    sigma_of_beta,
    smoothed_maps,
)
from trompe.geometry.noise import draw_noise

NORM, BETA, UNITS, SIZE = 1.7, 0.8, 5, 12


def one_hidden_layer() -> tuple[nn.Sequential, Tensor]:
    """A net whose hidden units have weights of one norm, at right angles to each other."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(SIZE, UNITS, generator=generator, dtype=torch.float64)
    rows = NORM * torch.linalg.qr(random)[0].T
    net = nn.Sequential(nn.Linear(SIZE, UNITS), nn.ReLU(), nn.Linear(UNITS, 3)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(rows)
        net[0].bias.copy_(torch.linspace(-1, 1, UNITS))
    return net.requires_grad_(False), torch.randn(1, SIZE, generator=generator).double() / 2


def test_theorem_2_on_a_network() -> None:
    """Noise of density p along every unit's weights: the ReLU gradient's mean is the smooth one."""
    net, x = one_hidden_layer()
    samples = 40_000
    generator = torch.Generator().manual_seed(1)
    draws = draw_noise(BETA * NORM, samples * UNITS, generator=generator).view(samples, UNITS)
    points = x + draws @ (net[0].weight / NORM)
    open_gates = (points @ net[0].weight.T + net[0].bias > 0).double()
    gradients = (open_gates * net[2].weight[1]) @ net[0].weight
    error = gradients.std(dim=0) / math.sqrt(samples)
    found = trompe.explainer("beta_smoothing", beta=BETA)(net, x, torch.tensor([1]))[0]
    assert ((gradients.mean(dim=0) - found).abs() <= 4 * error).all()
    # The test can fail: the gradient of the network as it is lies far off.
    plain = trompe.explainer("gradient")(net, x, torch.tensor([1]))[0]
    assert ((gradients.mean(dim=0) - plain).abs() > 4 * error).any()


def test_smoothgrad_with_the_matching_sigma_is_near_the_smoothed_gradient() -> None:
    net, x = one_hidden_layer()
    target = torch.tensor([1])
    sigma = matching_sigma(net, x, BETA)
    assert sigma == pytest.approx(math.log(2) * math.sqrt(2 * math.pi) / (BETA * NORM))
    found = trompe.explainer("smoothgrad", samples=20_000, sigma=sigma)(net, x, target)[0]
    # Normal noise opens a gate with the probability Phi(z / (sigma ||w||)).
    entering = net[0](x)[0]
    weights = net[2].weight[1]
    exact = (torch.special.ndtr(entering / (sigma * NORM)) * weights) @ net[0].weight
    error = weights.norm() * NORM * 0.5 / math.sqrt(20_000)
    assert (found - exact).norm() <= 4 * error
    smoothed = trompe.explainer("beta_smoothing", beta=BETA)(net, x, target)[0]
    # The normal and the logistic distribution function differ by at most 0.0136 (on a fine grid).
    assert (exact - smoothed).norm() <= 0.0136 * weights.norm() * NORM


def test_the_two_choices_are_each_others_inverse() -> None:
    for beta in (0.1, 0.8, 30.0):
        for norm in (0.5, 1.0, 4.0):
            sigma = sigma_of_beta(beta, norm)
            assert beta_of_sigma(sigma, norm) == pytest.approx(beta)
            assert sigma_of_beta(sigma, norm) == pytest.approx(beta)  # symmetrical in the two
            assert sigma_of_beta(2 * beta, norm) == sigma_of_beta(beta, 2 * norm)
    # By its definition: the mean of relu over the noise, at the kink, is softplus(0).
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    sigma = sigma_of_beta(0.8)
    density = torch.exp(-0.5 * (grid / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    mean = float(torch.trapezoid(grid.relu() * density, grid))
    assert mean == pytest.approx(math.log(2) / 0.8, rel=1e-6)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError):
            sigma_of_beta(bad)
        with pytest.raises(UsageError):
            beta_of_sigma(bad)
        with pytest.raises(UsageError):
            sigma_of_beta(1.0, bad)


def test_the_norm_of_the_first_layer() -> None:
    net, x = one_hidden_layer()
    assert first_layer_norm(net, x) == pytest.approx(NORM)
    normed = nn.Sequential(net[0], nn.BatchNorm1d(UNITS), *net[1:]).double().eval()
    with torch.no_grad():
        normed[1].weight.fill_(3.0)
        normed[1].running_var.fill_(4.0)
    assert first_layer_norm(normed, x) == pytest.approx(1.5 * NORM, rel=1e-5)
    convolution = nn.Conv2d(3, 1, 3).double()
    images = torch.rand(2, 3, 6, 6).double()
    wide = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2))
    expected = float(convolution.weight.detach().norm())
    assert first_layer_norm(wide.double().eval(), images) == pytest.approx(expected)
    with pytest.raises(ExplanationError, match="no activation with a kink"):
        first_layer_norm(nn.Linear(SIZE, 2).double(), x)


def test_smoothgrad_by_sigma_is_the_mean_over_that_noise() -> None:
    net, x = nets.plain().double(), nets.images()
    target = torch.tensor([2, 1])
    found = trompe.explainer("smoothgrad", samples=3, sigma=0.4, seed=5)(net, x, target)
    draws = torch.randn(
        3, 1, *x.shape[1:], generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    parts = [trompe.explainer("gradient")(net, x + 0.4 * draw, target) for draw in draws]
    nets.close(found, torch.stack(parts).mean(dim=0), 1e-12)
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(UsageError, match="sigma"):
            trompe.explainer("smoothgrad", sigma=bad)


def test_the_comparison() -> None:
    net, x, target = nets.plain().double(), nets.images(), torch.tensor([2, 1])
    found = compare_smoothings(net, x, target, beta=2.0, samples=(8, 2), repeats=3)
    assert found.samples == (2, 8)
    assert list(found.seconds) == ["plain", "beta-smoothing", "SmoothGrad 2", "SmoothGrad 8"]
    assert all(len(times) == 3 and min(times) > 0 for times in found.seconds.values())
    assert found.sigma in found.sigmas
    assert list(found.sigmas) == sorted(found.sigmas)
    assert found.closest in found.sigmas
    # One entry by hand.
    smoothed = trompe.explainer("beta_smoothing", beta=2.0)(net, x, target)
    noisy = trompe.explainer("smoothgrad", samples=8, sigma=found.sigmas[1])(net, x, target)
    pair = [trompe.heatmap(one)[1].flatten() for one in (noisy, smoothed)]
    by_hand = float(torch.corrcoef(torch.stack(pair))[0, 1])
    assert float(found.agreement[1, 1]) == pytest.approx(by_hand, abs=1e-9)
    # Without noise SmoothGrad is the plain map.
    still = compare_smoothings(net, x, target, samples=(1,), sigmas=(0.0,), repeats=1)
    assert torch.allclose(still.agreement[0], still.plain)
    for bad in ({"repeats": 0}, {"samples": ()}, {"sigmas": ()}, {"beta": 0.0}):
        with pytest.raises(UsageError):
            compare_smoothings(net, x, target, **bad)  # type: ignore[arg-type]


def test_smoothed_maps_are_those_of_a_network_built_with_softplus() -> None:
    net, x, target = nets.plain().double(), nets.images(), torch.tensor([2, 1])
    found = smoothed_maps(net, x, target, betas=(None, 0.8))
    layers = [nn.Softplus(beta=0.8) if isinstance(m, nn.ReLU) else m for m in net]
    for heat, model in zip(found, (net, nn.Sequential(*layers)), strict=True):
        start = x.clone().requires_grad_(True)
        scores = model(start).gather(1, target[:, None]).sum()
        gradient = torch.autograd.grad(scores, start)[0].abs().sum(dim=1)
        nets.close(heat, gradient / gradient.sum(dim=(1, 2), keepdim=True), 1e-9)
