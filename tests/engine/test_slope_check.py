"""A model whose gradient is not that of its output is said to be one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Net(nn.Module):
    def __init__(self, step: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.fc, self.step = nn.Linear(128, 5), step or (lambda h: h)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.step(self.body(x)).flatten(1))


def said(net: nn.Module, caplog: pytest.LogCaptureFixture) -> bool:
    trompe.explainer("gradient")(net.double().eval(), X, 0)
    return "the model's gradient is not that of its output" in caplog.text


@pytest.mark.parametrize(
    "step",
    [
        Reversed.apply,
        lambda h: h + ((h * 3).round() / 3 - h).detach() * 0.9 - 0.5 * (h - h.detach()),
        lambda h: h.detach() * h,  # a product, of whose two shares one is cut off
    ],
    ids=["reversed", "straight through", "detached"],
)
def test_another_gradient_is_noticed(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert said(Net(step), caplog)


def test_a_hook_that_was_left_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    net.body[1].register_full_backward_hook(lambda module, given, out: (given[0] * 3,))
    assert said(net, caplog)


@pytest.mark.parametrize("step", [None, torch.tanh, lambda h: h * h, torch.Tensor.detach_])
def test_nothing_is_said_of_others(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    net = Net(None if step is torch.Tensor.detach_ else step)
    assert not said(net, caplog)
    assert not said(net.float().double(), caplog)
