"""Models with autograd functions of their own: a dropped second derivative is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import ModelError
from trompe.geometry import principal_curvatures
from trompe.types import InputSpace

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPACE = InputSpace((0.0,) * 3, (1.0,) * 3)


class Right(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        out = h.tanh()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return grad * (1 - out * out)


class Once(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return grad * (1 - out * out)


class KeptOutside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.out = h.tanh()
        return ctx.out.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - ctx.out * ctx.out)


class Net(nn.Module):
    def __init__(self, act: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc, self.act = (
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 3),
            nn.Linear(64, 3),
            act,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.b(self.a(x).relu())).flatten(1))


def made(act: Any) -> nn.Module:
    return Net(act).double().eval().requires_grad_(False)


@pytest.mark.parametrize("function", [Once, KeptOutside])
def test_a_dropped_second_derivative_is_refused_by_name(function: Any) -> None:
    net = made(function.apply)
    with pytest.raises(ModelError, match=function.__name__):
        trompe.manipulate(net, X, torch.rand(8, 8), input_space=SPACE, iterations=2)
    with pytest.raises(ModelError, match=function.__name__):
        principal_curvatures(net, X, k=1)
    # What takes no second derivative of the model goes on: a map, and an attack by queries.
    x = X.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(made(torch.tanh)(x)[:, 0].sum(), x)
    torch.testing.assert_close(trompe.explainer("gradient")(net, X, 0), expected)
    trompe.attacks.query_attack(net, X, queries=2, input_space=SPACE)


def test_auto_attack_says_so() -> None:
    found = trompe.auto_attack(made(Once.apply), X[:1], input_space=SPACE, budget=0.01)
    assert "Once" in found.failures["unlike"]
    assert "member failed" in found.flags[0]


def test_a_right_one_is_as_good_as_the_plain_function() -> None:
    target = torch.rand(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own, plain = (
        trompe.manipulate(made(act), X, target, input_space=SPACE, iterations=3).x_adv
        for act in (Right.apply, torch.tanh)
    )
    torch.testing.assert_close(own, plain)
