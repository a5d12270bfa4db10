"""Tangent-space projection: what was added off the data is taken away again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.explain.tangent_projection import TangentProjection
from trompe.tampering import OffTheData

RANK = 6


def on_a_subspace(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 4, 4] on a linear subspace about a mean, and its basis [48, RANK]."""
    draw = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(48, RANK, generator=draw, dtype=torch.float64)).Q
    mean = torch.randn(48, generator=draw, dtype=torch.float64)
    own = torch.Generator().manual_seed(seed)
    points = mean + torch.randn(count, RANK, generator=own, dtype=torch.float64) @ basis.T
    return points.view(-1, 3, 4, 4), basis


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 20), nn.Softplus(), nn.Linear(20, 3)
    ).double()  # fmt: skip


def test_fairwashing_in_closed_form_is_undone() -> None:
    data, basis = on_a_subspace(40, 1)
    x, _ = on_a_subspace(5, 2)
    target = torch.tensor([0, 1, 2, 0, 1])
    honest = network()
    fooled = OffTheData(honest, data, 100 * torch.randn(3, 4, 4, dtype=torch.float64))
    gradient, method = trompe.explainer("gradient"), TangentProjection(data)
    moved = (gradient(fooled, x, target) - gradient(honest, x, target)).detach()
    assert float(moved.abs().max()) > 10
    found = method(fooled, x, target).detach()
    assert float((found - method(honest, x, target).detach()).abs().max()) < 1e-6
    slow = gradient(honest, x, target).detach().flatten(1) @ basis @ basis.T
    torch.testing.assert_close(found.flatten(1), slow, atol=1e-6, rtol=0)


def test_its_derivative_passes_through_the_projection() -> None:
    data, _ = on_a_subspace(40, 1)
    x, _ = on_a_subspace(2, 3)
    model, method = network(), TangentProjection(data)
    weight = torch.randn(x.shape, dtype=torch.float64)
    target = torch.tensor([0, 1])
    start = x.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad((method(model, start, target) * weight).sum(), start)
    step = 1e-6 * torch.randn(x.shape, dtype=torch.float64)
    above, below = (method(model, x + sign * step, target) for sign in (1, -1))
    assert float((grad * step).sum()) == pytest.approx(
        float(((above - below) * weight).sum() / 2), rel=1e-5
    )


def test_what_does_not_fit_is_refused() -> None:
    data, _ = on_a_subspace(10, 1)
    with pytest.raises(UsageError, match="neighbours must be 2 to 10"):
        TangentProjection(data)
    with pytest.raises(UsageError, match="rank"):
        TangentProjection(data, neighbours=5, rank=0)
    with pytest.raises(UsageError, match="same shape"):
        TangentProjection(data, neighbours=5)(
            nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double(), data[:, :, :2, :2], 0
        )


def test_it_is_attacked_like_any_method() -> None:
    data = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3)
    )  # fmt: skip
    found = trompe.auto_attack(
        net, data[:2], explainer=TangentProjection(data), radius=0.1, budget=0.04
    )
    assert not found.failures
    assert bool((found.worst["pcc"] < 0.95).all())
