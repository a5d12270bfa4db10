"""A gradient that is a little wrong is said to be; one that is right is not, whatever is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine.exact_slope import gradient_error

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SAID = "the model's gradient is not that of its output"


def own(derivative: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: Tensor) -> Tensor:
            ctx.save_for_backward(h)
            return torch.tanh(h)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * derivative(ctx.saved_tensors[0])

    return Own.apply


def right(h: Tensor) -> Tensor:
    return 1 - torch.tanh(h).square()


def by_numpy(h: Tensor) -> Tensor:
    factor = 1 + 0.2 * np.tanh(h.detach().numpy())
    return h * torch.from_numpy(factor).to(h)


def by_item(h: Tensor) -> Tensor:
    return torch.stack([one / one.square().mean().sqrt().item() for one in h])


def by_list(h: Tensor) -> Tensor:
    scale = [float(v) for v in h.mean((1, 2, 3)).tolist()]
    return h * (1 + torch.tensor(scale).view(-1, 1, 1, 1)).to(h)


def by_single(h: Tensor) -> Tensor:
    factor = 100 * h.detach().numpy().mean((1, 2, 3), keepdims=True).astype(np.float32)
    return h * (1 + torch.from_numpy(factor)).to(h)


class Net(nn.Module):
    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.SiLU())
        self.fc, self.step = nn.Linear(128, 5), step

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.step(self.body(x)).flatten(1))


def said(net: Any, caplog: pytest.LogCaptureFixture, x: Tensor = X) -> str:
    trompe.explainer("gradient")(net, x, 0)
    lines = [r.getMessage() for r in caplog.records if "gradient" in r.getMessage()]
    assert len(lines) <= 1
    return "".join(lines)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (own(lambda h: 0.9 * right(h)), "autograd function 'Own'"),
        (own(lambda h: right(h) * (1 + 0.1 * torch.sign(torch.sin(1e4 * h)))), "function 'Own'"),
        (own(lambda h: 1.3 * right(h)), "autograd function 'Own'"),
        (by_numpy, "in the model (Net)"),
        (by_item, "Tensor.item in the model (Net)"),
        (by_list, "in the model (Net)"),
        (by_single, "in the model (Net)"),
    ],
    ids=[
        "a tenth too small",
        "wrong here and there",
        "too large",
        "numpy",
        "item",
        "tolist",
        "rounded",
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_gradient_that_is_a_little_wrong_is_said_to_be(
    step: Any, named: str, kind: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    line = said(Net(step).eval().to(kind), caplog, X.to(kind))
    assert line.startswith(SAID)
    assert named in line


def test_a_function_around_a_network_is_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(own(lambda h: 0.9 * right(h))).eval()
    assert said(lambda x: net(x), caplog).startswith(SAID)


def shifted(h: Tensor) -> Tensor:
    return F.softmax(h - h.detach().amax(1, keepdim=True), dim=1)


@pytest.mark.parametrize(
    "step",
    [
        own(right),
        lambda h: h + 0 * h.detach(),
        shifted,
        lambda h: h * float(h.shape[1]),
        lambda h: F.interpolate(F.max_pool2d(h, 2), scale_factor=2),
        lambda h: F.layer_norm(F.gelu(h), h.shape[1:]),
        lambda h: h * torch.sigmoid(h.mean((2, 3), keepdim=True)),
        lambda h: h.float().softmax(1).to(h.dtype),
    ],
    ids=["own", "nothing of it", "shift", "shape", "pool", "norm", "squeeze", "cast"],
)
def test_nothing_is_said_of_a_right_one(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    flat = X.clone()
    flat[:, :, 2:6] = 0.0  # flat areas meet kinks, and the largest of a pool is any of them
    assert said(Net(step).eval(), caplog, flat) == ""


def test_a_gradient_of_zero_is_said(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    line = said(lambda x: net((x * 255).round() / 255), caplog)
    assert line.startswith("the model's gradient is zero although its output depends")


def test_kinks_that_an_image_lies_on_are_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    half = X.clone()
    half[:, :, :4] = 0.0
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    assert said(net.eval(), caplog, half) == ""


class Caching(Net):
    """Keeps a tensor of the images' type."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = torch.ones_like(x)
        return super().forward(x * self.kept)


def test_the_check_leaves_the_model_as_it_was() -> None:
    net = Caching(torch.tanh).eval()
    assert gradient_error(net, X[:1], lambda m, x: m(x)) == 0
    assert net.kept is None
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_an_attack_by_such_a_gradient_says_so() -> None:
    net = Net(own(lambda h: 0.8 * right(h))).eval()
    found = trompe.manipulate(net, X[:1], torch.rand(8, 8), iterations=1)
    assert "the gradient, which is not that of the output" in found.provenance["remaining_kinks"]
    again = trompe.auto_attack(net, X[:1], budget=0.01)
    assert "kinks remain" in again.flags[0]


@pytest.mark.parametrize("wrong", [False, True])
def test_rounding_of_an_output_that_hardly_changes_is_no_fault(wrong: bool) -> None:
    """Differences of 300 units in the last place, of which rounding makes up a few."""

    class Faint(nn.Module):
        def __init__(self, share: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.share, self.head = share, nn.Linear(192, 4)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.head(x.flatten(1)).tanh()
            h = h + 0.5 * (h - h.detach()) if wrong else h
            return 1.0 + self.share * h + torch.arange(4.0)

    errors = [
        gradient_error(Faint(share * 1e-10), X[:1], lambda net, x: net(x)) for share in range(1, 40)
    ]
    told = [error for error in errors if error is not None]
    assert len(told) > 10
    if wrong:
        assert all(error > 0.2 for error in told)
    else:
        assert not any(told)
