"""Vector-Jacobian products written out, against autograd's own to the third derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import record, vjp
from trompe.engine.adjoints import ADJOINTS


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


KERNEL, ROWS = numbers(4, 3, 3, 3), numbers(5, 8)
CASES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], bool]] = {
    "conv2d": (lambda x: F.conv2d(x, KERNEL, KERNEL[:, 0, 0, 0]), (2, 3, 5, 6), True),
    "conv2d strided": (
        lambda x: F.conv2d(input=x, weight=KERNEL, stride=2, padding=1, dilation=2),
        (2, 3, 8, 7),
        True,
    ),
    "conv2d grouped": (lambda x: F.conv2d(x, KERNEL[:, :1], None, 1, 1, 1, 2), (1, 2, 5, 5), True),
    "conv1d": (lambda x: F.conv1d(x, KERNEL[..., 0]), (2, 3, 7), True),
    "conv2d without a batch": (lambda x: F.conv2d(x, KERNEL), (3, 5, 6), False),
    "conv2d padded in words": (lambda x: F.conv2d(x, KERNEL, padding="same"), (2, 3, 5, 6), False),
    "conv2d of two": (lambda x: F.conv2d(x, x[:1, :, :3, :3]), (2, 3, 5, 6), False),
    "conv2d of a weight alone": (lambda x: F.conv2d(KERNEL, x), (2, 3, 2, 2), False),
    "linear": (lambda x: F.linear(x, ROWS, ROWS[:, 0]), (2, 8), True),
    "linear of a sequence": (lambda x: F.linear(x, ROWS), (2, 3, 8), True),
    "linear of one": (lambda x: F.linear(x, ROWS), (8,), True),
    "linear of a weight alone": (lambda x: F.linear(ROWS, x), (3, 8), False),
    "relu": (F.relu, (2, 9), True),
    "Tensor.relu": (lambda x: x.relu(), (2, 9), True),
    "flatten": (lambda x: x.flatten(1), (2, 3, 4), True),
    "view": (lambda x: x.view(4, -1), (2, 3, 4), True),
    "reshape of a transpose": (lambda x: x.transpose(0, 1).reshape(-1), (2, 3), True),
}


class Plain(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", CASES)
def test_against_autograd(name: str) -> None:
    function, shape, written = CASES[name]
    x = numbers(*shape, seed=1).requires_grad_(True)
    tape, out = record(Plain(function), x)
    op = tape.calls[-1]
    relevance = numbers(*out.shape, seed=2).requires_grad_(True)
    answer = ADJOINTS[op.func](relevance, op)
    assert (answer is not NotImplemented) is written
    aliases = [alias for _, alias in op.edges]
    expected = torch.autograd.grad(out, aliases, relevance, create_graph=True, allow_unused=True)
    found = vjp(relevance, op)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
    derivatives = []
    for shares in (found, expected):
        loss = sum((share.pow(3).sum() for share in shares), torch.zeros(()).double())
        first = torch.autograd.grad(loss, (relevance, x), create_graph=True, materialize_grads=True)
        second = first[0].pow(2).sum() + first[1].pow(2).sum()
        derivatives.append([*first, *torch.autograd.grad(second, relevance)])
    for one, other in zip(*derivatives, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_weights_are_left_to_autograd() -> None:
    weight = ROWS.clone().requires_grad_(True)
    tape, out = record(Plain(lambda x: F.linear(x, weight)), numbers(2, 8).requires_grad_(True))
    assert ADJOINTS[F.linear](torch.ones_like(out), tape.calls[-1]) is NotImplemented
