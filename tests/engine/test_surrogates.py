"""Every kink has a smooth stand-in that tends to it; the report tells what was replaced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import kinks

SLOPES = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)

ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp_min": lambda x: x.clamp_min(0),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "prelu": lambda x: F.prelu(x, SLOPES),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "elu": lambda x: F.elu(x, 1.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 1.5),
    "threshold": lambda x: F.threshold(x, 0.3, 0.3),
    "softshrink": F.softshrink,
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "max of two": lambda x: torch.max(x, x.flip(1)),
    "nn.PReLU": nn.PReLU(4).double().requires_grad_(False),
    "nn.Hardswish in place": lambda x: nn.Hardswish(inplace=True)(x * 1),
    "nn.ReLU6 in place": lambda x: nn.ReLU6(inplace=True)(x * 1),
}

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "max_pool1d of vectors": lambda x: F.max_pool1d(x[:, :, 0], 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool3d": lambda x: F.max_pool3d(x.unsqueeze(1), (2, 3, 2), (1, 2, 2), (0, 1, 1)),
    "max_pool3d with ceil_mode": lambda x: F.max_pool3d(x, 3, 2, ceil_mode=True),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[:, :, 0], 4),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (2, 4)),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, 3),
    "amax": lambda x: x.amax(dim=(2, 3)),
    "max over the width": lambda x: x.max(dim=-1, keepdim=True).values,
    "max over the tokens": lambda x: x.flatten(2).transpose(1, 2).amax(1),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
}

MAXOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "max over channels": lambda x: x.max(dim=1, keepdim=True).values,
    "groups of channels": lambda x: x.unflatten(1, (2, 2)).amax(2),
    "stacked first": lambda x: torch.stack([x, -x]).max(0).values,
    "stacked last": lambda x: torch.stack([x, torch.zeros_like(x)], -1).amax(-1),
    "least of a stack": lambda x: torch.stack([x, x.flip(1)], 1).min(1).values,
}


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 5, 5, generator=generator, dtype=torch.float64) * 4


@pytest.mark.parametrize("name", [*ELEMENTWISE, *POOLS, *MAXOUTS])
def test_tends_to_the_original(name: str) -> None:
    net, x = Net({**ELEMENTWISE, **POOLS, **MAXOUTS}[name]), images()
    errors = []
    for beta in (10.0, 100.0, 1000.0):
        out = trompe.smooth(net, beta=beta, pooling=True)(x)
        assert out.shape == net(x).shape
        errors.append(float((out - net(x)).abs().max()))
    assert errors[0] > 1e-9, "nothing was smoothed"
    assert errors[2] <= 4 / 1000
    assert errors[2] < errors[1] < errors[0] or errors[1] < 1e-9


@pytest.mark.parametrize("name", [*ELEMENTWISE, *POOLS, *MAXOUTS])
def test_is_smooth(name: str) -> None:
    """First and second derivatives agree with finite differences, even at a kink."""
    smoothed = trompe.smooth(Net({**ELEMENTWISE, **POOLS, **MAXOUTS}[name]), beta=3.0, pooling=True)
    x = (images()[:1, :, :3, :3] / 4).round(decimals=1).requires_grad_(True)
    assert torch.autograd.gradcheck(smoothed, (x,))
    assert torch.autograd.gradgradcheck(smoothed, (x,))


@pytest.mark.parametrize("name", POOLS)
def test_pooling_is_left_alone_unless_asked_for(name: str) -> None:
    net, x = Net(POOLS[name]), images()
    assert torch.equal(trompe.smooth(net, beta=2.0)(x), net(x))


@pytest.mark.parametrize("name", MAXOUTS)
def test_a_maximum_of_candidates_is_an_activation(name: str) -> None:
    net, x = Net(MAXOUTS[name]), images()
    soft = trompe.smooth(net, beta=2.0)(x)
    assert not torch.allclose(soft, net(x))
    assert torch.equal(soft, trompe.smooth(net, beta=2.0, pooling=True)(x))


def test_it_is_said_where_only_pooling_could_be_smoothed(caplog: pytest.LogCaptureFixture) -> None:
    trompe.smooth(Net(lambda x: x.flatten(1).unflatten(1, (50, 2)).amax(2)), beta=2.0)(images())
    assert "nothing is smoothed" in caplog.text


def test_a_guard_is_no_activation() -> None:
    net, x = Net(lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-6)), images()
    assert torch.equal(trompe.smooth(net, beta=1.0)(x), net(x))


def test_smoothing_as_a_context() -> None:
    net, x = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)),
        torch.ones(1, 3),
    )
    plain, smoothed = net(x), trompe.smooth(net, beta=1.0)
    with smoothed as same, trompe.smooth(nn.Identity(), beta=1.0):
        assert same is smoothed
        torch.testing.assert_close(net(x), smoothed(x))
        assert not torch.equal(net(x), plain)
    assert torch.equal(net(x), plain)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=1).values


def test_report() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.MaxPool2d(2), Sorted(), nn.ReLU(inplace=True)
    )
    x = torch.zeros(1, 3, 6, 6)
    report = kinks(net, x)
    assert [k.fate for k in report.kinks] == ["smoothed", "pooling", "remains", "smoothed"]
    assert [k.operation for k in report.kinks] == ["hardtanh", "max pooling", "", "relu"]
    assert [k.place for k in report.replaced] == ["1 (ReLU6)", "4 (ReLU)"]
    assert [k.place for k in report.remaining] == ["2 (MaxPool2d)", "3 (Sorted)"]
    assert [k.function for k in report.uncovered] == ["torch.Tensor.sort"]
    assert len(kinks(net, x, pooling=True).remaining) == 1
    assert "hardtanh in 1 (ReLU6), 1x" in str(report)
