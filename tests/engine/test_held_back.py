"""Values held back from the gradient, cut links and compiled parts: said, refused, or right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine.once import watched
from trompe.errors import UnsupportedOp

X, TARGET = nets.images(), torch.tensor([0, 3])


def net(step: Any) -> nn.Sequential:
    module = step if isinstance(step, nn.Module) else nets.Plain(step)
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), module, nn.Flatten(), nn.Linear(4 * 36, 4))
    nets.seeded(whole).double()
    return whole


def without_grad(h: Tensor) -> Tensor:
    with torch.no_grad():
        gate = F.relu(h)
    return h * gate


def first_of_all(h: Tensor) -> Tensor:
    float(h.detach().abs().max())  # read, and not used
    return F.relu(h)


HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "a detached gate": lambda h: h * torch.sigmoid(h.detach()),
    "data": lambda h: h + h.data.tanh(),
    "no_grad": without_grad,
    "a scale": lambda h: h / (1 + h.detach().square().mean((1, 2, 3), keepdim=True)),
    "straight through": lambda h: h + (torch.round(4 * h) / 4 - h).detach(),
    "by weights": lambda h: (
        h + F.conv2d(h.detach(), torch.ones(4, 4, 1, 1, requires_grad=True).to(h))
    ),
}
NOT_HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "a mask": lambda h: h * (h.detach() > 0).to(h.dtype),
    "read": first_of_all,
    "an index": lambda h: h.gather(1, h.detach().argmax(1, keepdim=True)).expand_as(h),
    "a rounded factor": lambda h: h * torch.sign(h.detach()),
    "a division that rounds": lambda h: h * h.detach().div(0.5, rounding_mode="floor"),
    "relu": F.relu,
    "constants": lambda h: h + torch.zeros_like(h).detach(),
}


@pytest.mark.parametrize("kind", HELD)
def test_values_held_back_are_said_with_their_place(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    trompe.explainer("gradient")(net(HELD[kind]), X, TARGET)
    assert "values held back from it" in caplog.text
    assert "in 1 (Plain)" in caplog.text


@pytest.mark.parametrize("kind", NOT_HELD)
def test_what_loses_no_derivative_is_not(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = net(NOT_HELD[kind])
    trompe.explainer("gradient")(model, X, TARGET)
    assert watched(model, (X,), {}).held == ""
    assert "held back" not in caplog.text


class Reversed(torch.autograd.Function):
    """Gives its input back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


@pytest.mark.parametrize(
    "method", ["lrp", "guided_backprop", "deconvnet", "excitation_backprop", "deeplift"]
)
def test_a_cut_record_is_refused_instead_of_a_map_of_zeros(method: str) -> None:
    hooked = net(nn.ReLU())
    handle = hooked[1].register_full_backward_hook(lambda *_: None)
    explainer = trompe.explainer(method)
    with pytest.raises(UnsupportedOp, match=r"'1' \(ReLU\) is cut off.*backward hook"):
        explainer(hooked, X, TARGET)
    handle.remove()
    assert bool(explainer(hooked, X, TARGET).any())
    with pytest.raises(UnsupportedOp, match="autograd function 'Reversed'"):
        explainer(net(lambda h: Reversed.apply(F.relu(h))), X, TARGET)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_map_of_a_smoothed_compiled_part_has_its_derivative(backend: str) -> None:
    part = nets.Plain(F.relu)

    def derivative(model: nn.Module) -> Tensor:
        x = X.clone().requires_grad_(True)
        found = trompe.explainer("gradient")(trompe.smooth(model, beta=2.0), x, TARGET)
        return torch.autograd.grad(found.square().sum(), x)[0]

    expected = derivative(net(part))
    found = derivative(net(torch.compile(nets.Plain(F.relu), backend=backend)))
    torch.testing.assert_close(found, expected)
    assert bool(expected.any())
