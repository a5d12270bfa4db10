"""SmoothGrad certificates against closed forms and sampling."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates.gates import Range
from trompe.certificates.randomised import (
    BEND,
    SLOPE,
    SparseMaps,
    gradient_bound,
    interval_at_x,
    interval_in_ball,
)


def test_the_constants_are_integrals() -> None:
    t = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
    step = float(t[1] - t[0])
    assert float(((t.square() - 1).clamp(min=0) * density).sum() * step) == pytest.approx(BEND)
    assert float((t.clamp(min=0) * density).sum() * step) == pytest.approx(SLOPE)


def test_the_bound_holds_for_the_worst_score() -> None:
    """For a step along a line the smoothed gradient is the density itself."""
    sigma = 0.7
    y = torch.linspace(-4, 4, 2001).double()
    gradient = torch.exp(-(y**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    for radius in (0.01, 0.1, 1.0):
        shift = round(radius / float(y[1] - y[0]))
        change = (gradient[shift:] - gradient[:-shift]).abs().max()
        assert float(change) <= gradient_bound(sigma, shift * float(y[1] - y[0]))


def test_the_interval_in_the_ball_is_exact_for_a_half_space() -> None:
    """The mean of an indicator of a half space moves exactly as far as the bound allows."""
    sigma, radius = 0.5, 0.3
    distance = torch.tensor([-0.4, 0.0, 0.9]).double()
    mean = torch.special.ndtr(distance / sigma)
    ball = interval_in_ball(Range(mean, mean), sigma, radius)
    assert torch.allclose(ball.low, torch.special.ndtr((distance - radius) / sigma), atol=1e-8)
    assert torch.allclose(ball.high, torch.special.ndtr((distance + radius) / sigma), atol=1e-8)


def test_the_interval_at_x_covers_the_truth() -> None:
    torch.manual_seed(0)
    truth = torch.rand(400, 4, 4).double()
    hits = torch.distributions.Binomial(100, truth).sample().long()
    found = interval_at_x(SparseMaps(hits, 100, 1.0), 0.9)
    covered = ((found.low <= truth) & (truth <= found.high)).flatten(1).all(1)
    assert covered.double().mean() >= 0.9
    sure = interval_at_x(SparseMaps(torch.tensor([[[0, 100]]]), 100, 1.0), 0.9)
    assert sure.low[0, 0, 0] == 0
    assert sure.high[0, 0, 1] == 1


class Anything(nn.Module):
    """Operations that no other certificate covers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 36))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1).sort(dim=1).values) @ self.weight.T


def test_it_needs_nothing_of_the_network() -> None:
    torch.manual_seed(0)
    net, x = Anything(), torch.randn(2, 1, 6, 6)
    certificates = [
        trompe.certify(net, x, radius=r, method="smoothgrad", samples=300) for r in (0.0, 0.05, 0.5)
    ]
    for one, other in itertools.pairwise(certificates):
        assert (one.heatmap_l1 <= other.heatmap_l1).all()
        assert (one.topk_overlap(3) >= other.topk_overlap(3)).all()
    assert certificates[1].confidence == 0.99
    assert (certificates[1].gradient_l2 == gradient_bound(0.5, 0.05)).all()


def test_the_sparse_map_of_a_known_expectation_stays_within_its_bound() -> None:
    """Two pixels that take turns: ``S = (Phi(x / sigma), Phi(-x / sigma))``, known exactly."""

    class TakesTurns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # The gradient by pixel 0 is 1 + [x_0 > 0], that by pixel 1 is 1.5.
            score = x[:, 0, 0, 0] + x[:, 0, 0, 0].clamp(min=0) + 1.5 * x[:, 0, 0, 1]
            return torch.stack([score, -score], 1)

    x = torch.zeros(1, 1, 1, 2)
    target = torch.tensor([0])
    sigma = 0.5
    for radius in (0.05, 0.2, 0.5):
        found = trompe.certify(
            TakesTurns(), x, radius=radius, target=target, method="smoothgrad", sigma=sigma,
            samples=2000, top=0.6,
        )  # fmt: skip
        share = float(torch.special.ndtr(torch.tensor(radius / sigma).double()))
        true_change = 2 * (share - 0.5)
        assert true_change <= float(found.heatmap_l1) <= 1.13 * true_change
