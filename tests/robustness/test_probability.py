"""The probability of a misleading explanation, on explainers where it is known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.metrics import pcc
from trompe.robustness import misleading_probability
from trompe.robustness.subset_simulation import monte_carlo, subset_simulation
from trompe.types import heatmap


def first(normal: Tensor) -> Tensor:
    """The event of a value below -c has the probability Phi(-c)."""
    return normal[:, 0].double()


def radial(normal: Tensor) -> Tensor:
    """Minus the squared norm of four numbers: chi-square, far from linear."""
    return -normal[:, :4].double().square().sum(dim=1)


@pytest.mark.parametrize("depth", [1.0, 3.0, 4.5])
def test_rare_events_are_found(depth: float) -> None:
    truth = norm.cdf(-depth)
    draw = torch.Generator().manual_seed(1)
    found = subset_simulation(first, 20, -depth, 500, draw, runs=5)
    assert 0.5 * truth < found.value < 2 * truth
    assert found.low <= found.value <= found.high
    assert found.low < truth < found.high
    assert found.evaluations < 5 * 500 * 8


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Both ends, linear and not: of 60 intervals of 95 % nearly all hold the truth."""
    hits = 0
    for seed in range(30):
        draw = torch.Generator().manual_seed(seed)
        found = subset_simulation(first, 10, -3.0, 200, draw)
        hits += found.low <= norm.cdf(-3) <= found.high
        found = subset_simulation(radial, 10, -20.0, 200, draw)
        truth = math.exp(-10) * (1 + 10)  # chi-square with four degrees of freedom above 20
        hits += found.low <= truth <= found.high
    assert binomtest(hits, 60, 0.95, alternative="less").pvalue > 1e-3


def test_monte_carlo_agrees_where_it_can() -> None:
    draw = torch.Generator().manual_seed(0)
    found = monte_carlo(first, 3, -1.0, 4000, draw)
    assert found.low < norm.cdf(-1) < found.high
    assert found.evaluations == 4000


def test_what_never_happens_has_no_lower_end_and_an_honest_upper_one() -> None:
    draw = torch.Generator().manual_seed(0)
    found = subset_simulation(lambda normal: torch.ones(len(normal)), 5, 0.5, 100, draw)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0.001 < found.high < 0.01  # 0 of 500


class Switch:
    """A map that turns over where the first pixel leaves a half space."""

    def __init__(self, edge: float) -> None:
        self.edge = edge
        self.maps = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(3)).double()

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        away = (x[:, 0, 0, 0] - 0.5) / 0.1
        weight = torch.sigmoid(4 * (away - self.edge)).view(-1, 1, 1, 1)
        return (1 - weight) * self.maps[0] + weight * self.maps[1]


@pytest.mark.parametrize("change", ["gaussian", "linf"])
@pytest.mark.parametrize("method", ["subset", "monte-carlo"])
def test_images_are_changed_by_what_is_said(change: Any, method: Any) -> None:
    """The correlation depends on the first pixel alone: its probability is an integral."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double(), torch.full((1, 3, 4, 4), 0.5)
    explain = Switch(edge=0.0 if change == "linf" else 1.0)
    before = explain(net, x.double(), torch.zeros(1))
    grid = torch.linspace(-3, 3, 2001).double()
    moved = x.double().repeat(len(grid), 1, 1, 1)
    moved[:, 0, 0, 0] += 0.1 * grid
    values = pcc(heatmap(explain(net, moved, torch.zeros(1))), heatmap(before).expand(2001, 4, 4))
    tau = float(values[grid.sub(0.6 if change == "linf" else 1.3).abs().argmin()])
    density = grid.abs() <= 1 if change == "linf" else torch.from_numpy(norm.pdf(grid.numpy()))
    truth = float((density * (values < tau)).sum() / density.sum())
    found = misleading_probability(
        net, x.double(), explainer=explain, size=0.1, tau=tau, change=change, method=method,
        samples=400,
    )[0]  # fmt: skip
    assert found.low < truth < found.high
    assert found.value == pytest.approx(truth, rel=0.4)


def test_changes_of_a_euclidean_size_have_it() -> None:
    seen = []

    def explain(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        seen.append((x - 0.5).flatten(1).norm(dim=1))
        return x[:, :1] + torch.arange(16).view(1, 1, 4, 4)

    net, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.full((1, 3, 4, 4), 0.5)
    misleading_probability(
        net, x, explainer=explain, size=0.2, change="l2", method="monte-carlo", samples=40
    )
    assert torch.allclose(torch.cat(seen[1:]), torch.tensor(0.2), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0.0}, "size must be positive"),
        ({"tau": 2.0}, "tau within"),
        ({"change": "l7"}, "unknown change"),
        ({"method": "magic"}, "unknown method"),
        ({"samples": 10}, "50 samples"),
        ({"runs": 1}, "3 runs"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    settings = {"explainer": "gradient", "size": 0.1} | options
    with pytest.raises(UsageError, match=words):
        misleading_probability(net, torch.full((1, 3, 2, 2), 0.5), **settings)
