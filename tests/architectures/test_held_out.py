"""Networks written to be awkward: shared modules, nested functional residuals, in-place chains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.rules.composites import COMPOSITES

sys.path.insert(0, str(Path(__file__).parent))
from derivatives import slope_error
from families import images

TARGET = torch.tensor([1, 2])


def conv(width: int, out: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]


class Base(nn.Module):
    """Without biases, so that relevance is conserved."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.one = conv(3, 12), conv(12, 12), conv(12, 12, 1)
        self.last = nn.Linear(12, 5, bias=False)

    def head(self, x: Tensor) -> Tensor:
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


class SharedTwice(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.shared(x))
        return self.head(F.relu(self.shared(x)))


class NestedResiduals(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        inner = x + F.relu(self.shared(x) + F.relu(self.one(x) + x))
        return self.head(torch.relu(inner + 0.5 * (x + inner)))


class Branches(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mix = conv(36, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        parts = [F.relu(self.shared(x)), F.max_pool2d(x, 3, 1, 1), F.relu(self.one(x))]
        return self.head(F.relu(self.mix(torch.cat(parts, dim=1))))


class InPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x.relu_()
        shortcut = x
        x = self.shared(x)
        x += shortcut
        x = F.relu(x, inplace=True)
        left, right = self.one(x).chunk(2, dim=1)
        x = torch.cat([right, left], dim=1)
        return self.head(F.relu_(x))


NETS: list[type[nn.Module]] = [SharedTwice, NestedResiduals, Branches, InPlace]


@pytest.fixture(params=NETS, ids=lambda kind: kind.__name__)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: Callable[[], nn.Module] = request.param
    return made().double().requires_grad_(False)


def test_the_gradient_is_autograds(net: nn.Module) -> None:
    x = images(8).requires_grad_(True)
    (expected,) = torch.autograd.grad(net(x)[torch.arange(2), TARGET].sum(), x)
    torch.testing.assert_close(trompe.explainer("gradient")(net, x, TARGET), expected)


@pytest.mark.parametrize("composite", ["paper", *COMPOSITES])
def test_relevance_is_conserved(net: nn.Module, composite: str) -> None:
    """z+ and alpha-beta lose that of neurons without contributions of a sign: not tried there."""
    by_sign = composite not in ("epsilon", "epsilon_gamma_box", "attn")
    if by_sign and not isinstance(net, SharedTwice):
        return
    x = images(8)
    total = trompe.explainer("lrp", composite=composite)(net, x, TARGET).sum(dim=(1, 2, 3))
    scores = net(x)[torch.arange(2), TARGET]
    torch.testing.assert_close(total, scores, rtol=2e-3, atol=1e-6)


def test_deeplift_adds_up(net: nn.Module) -> None:
    x = images(8)
    total = trompe.explainer("deeplift")(net, x, TARGET).sum(dim=(1, 2, 3))
    torch.testing.assert_close(total, net(x)[torch.arange(2), TARGET])


@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "lrp", "excitation_backprop"])
def test_second_derivatives(net: nn.Module, name: str) -> None:
    smoothed = trompe.smooth(net, beta=5.0, pooling=True)
    x = images(8, 1)
    assert slope_error(trompe.explainer(name), smoothed, x, TARGET[:1]) < 1e-4
