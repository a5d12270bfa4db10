"""Models that change tensors in place are recorded right, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import record, smooth, sweep, vjp
from trompe.engine.sweep import RuleSet
from trompe.errors import UnsupportedOp

GRADIENT = RuleSet("gradient", {}, default=vjp)


class Net(nn.Module):
    """A linear layer, something in between, and a sum."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.linear(x)).flatten(1)[:, :3]


def result_ignored(h: Tensor) -> Tensor:
    h.mul_(2)
    h.relu_()
    return h


def chain(h: Tensor) -> Tensor:
    h += 1
    h *= 2
    h -= 0.5
    h /= 3
    return F.relu(h, inplace=True)


def items(h: Tensor) -> Tensor:
    h[:, 0] = h[:, 1] * 2
    h[:, 2:4] += 1
    return h


def buffer(h: Tensor) -> Tensor:
    out = h.new_zeros(h.shape)
    out[:, :3] = h[:, 3:].tanh()
    return out


def constant_view(h: Tensor) -> Tensor:
    mask = torch.zeros_like(h)
    mask[:, 1:].fill_(1.0)
    return h * mask


def residual(h: Tensor) -> Tensor:
    shortcut = h
    h = F.gelu(h)
    h += shortcut
    return h


def flattened(h: Tensor) -> Tensor:
    return h.view(-1, 2, 3).relu_().sigmoid()


def through_a_view(h: Tensor) -> Tensor:
    h[:, :3].mul_(2)
    return h


def under_a_view(h: Tensor) -> Tensor:
    part = h[:, :3]
    h.mul_(2)
    return part


def through_a_view_of_a_view(h: Tensor) -> Tensor:
    flat = h.t().contiguous().view(-1)
    rows = flat.view(6, -1)
    rows[1:5].mul_(3)
    flat[:1] += 2
    return rows.t().exp()


def kept_alive(h: Tensor) -> Tensor:
    left, right = h[:, :3], h[:, 3:]
    left.add_(right)
    right.mul_(2)
    return h + torch.cat([right, left], dim=1)


RIGHT = [
    result_ignored,
    chain,
    items,
    buffer,
    constant_view,
    residual,
    flattened,
    through_a_view,
    under_a_view,
    through_a_view_of_a_view,
    kept_alive,
]


@pytest.mark.parametrize("body", RIGHT, ids=lambda f: f.__name__)
def test_recorded_right(body: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net = Net(body).double()
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    expected = net(x)
    (gradient,) = torch.autograd.grad(expected[:, 1].sum(), x)
    tape, logits = record(net, x)
    torch.testing.assert_close(logits, expected)
    seed = torch.zeros_like(logits)
    seed[:, 1] = 1
    torch.testing.assert_close(sweep(tape, logits, seed, GRADIENT), gradient)


@pytest.mark.parametrize("body", RIGHT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("beta", [1e7, 2.0])
def test_smoothed_as_recorded(body: Callable[[Tensor], Tensor], beta: float) -> None:
    torch.manual_seed(0)
    net = Net(body).double()
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    smoothed = smooth(net, beta=beta)
    _, logits = record(smoothed, x)
    torch.testing.assert_close(logits, smoothed(x))
    if beta > 1e6:
        torch.testing.assert_close(logits, net(x), rtol=1e-5, atol=1e-5)


def data_changed(h: Tensor) -> Tensor:
    h.data.mul_(0.5)
    return h * 1


def detached(h: Tensor) -> Tensor:
    h.detach().clamp_(min=0)
    return h * 1


@pytest.mark.parametrize("body", [data_changed, detached], ids=lambda f: f.__name__)
def test_refused_where_the_record_would_differ(body: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net = Net(body).double()
    with pytest.raises(UnsupportedOp, match=r"torch\..* makes the recorded pass differ"):
        record(net, torch.randn(2, 6, dtype=torch.float64, requires_grad=True))


def written_columns(h: Tensor) -> Tensor:
    out = h.new_zeros(len(h), 3)
    for i in range(3):
        out[:, i] = h[:, i] * h[:, i + 1]
    return out


def products_in_place(h: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, 18, dtype=h.dtype).view(6, 3)
    out = h.new_ones(len(h), 3).addmm_(h, weight, beta=0.5, alpha=2)
    out = h.new_ones(len(h), 1, 3).baddbmm_(h[:, None], weight.expand(len(h), 6, 3))[:, 0] + out
    return out.addcmul_(h[:, 3:], h[:, :3], value=0.5)


@pytest.mark.parametrize("body", [written_columns, products_in_place])
def test_the_output_may_be_a_constant_that_was_written_into(
    body: Callable[[Tensor], Tensor],
) -> None:
    class Written(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.linear(x))

    model = Written(body).double()
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    tape, logits = record(model, x)
    start = torch.randn(2, 3, dtype=torch.float64)
    plain = model(x)
    torch.testing.assert_close(logits, plain)
    (expected,) = torch.autograd.grad(plain, x, start)
    torch.testing.assert_close(sweep(tape, logits, start, GRADIENT), expected)
    names = {call.func.__name__ for call in tape.calls}
    assert not names & {"addmm", "baddbmm", "addcmul"}  # taken apart, so that every method knows it
