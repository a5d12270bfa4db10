"""Kinks are found by watching; what no smoothing covers is reported or refused, never passed by."""

from __future__ import annotations

import logging
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import kinks
from trompe.errors import ModelError, TrompeError, UnsupportedOp
from trompe.types import InputSpace

X, TARGET = nets.images(), torch.tensor([0, 3])


class Mine(torch.autograd.Function):
    """A ReLU with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


def with_zero(h: Tensor) -> Tensor:
    return torch.stack([h, torch.zeros_like(h)])


UNCOVERED = {
    "a norm held up": lambda h: F.normalize(h, dim=1, eps=0.5),
    "a norm of magnitudes": lambda h: F.normalize(h, p=1, dim=1),
    "a cosine held up": lambda h: h * F.cosine_similarity(h, h + 1, dim=1, eps=2.0).unsqueeze(1),
    "a distance of magnitudes": lambda h: h * torch.dist(h[0], torch.zeros_like(h[0]), p=1),
    "a division that rounds": lambda h: h + torch.div(h, 0.5, rounding_mode="floor"),
    "an angle that jumps": lambda h: torch.atan2(h, h.flip(1)),
    "a root of complex numbers": lambda h: torch.sqrt(torch.complex(h, h.flip(1))).imag,
    "a logit cut off": lambda h: torch.logit(torch.sigmoid(h), eps=0.4),
    "numbers of eight bits": lambda h: h + h.float().to(torch.float8_e4m3fn).to(h.dtype),
    "sort": lambda h: with_zero(h).sort(0).values[1],
    "topk": lambda h: with_zero(h).topk(1, 0).values[0],
    "cummax": lambda h: with_zero(h).cummax(0).values[1],
    "sign": lambda h: h * (torch.sign(h) + 1) / 2,
    "round": lambda h: h + 0.1 * torch.round(h),
    "indexing": lambda h: torch.zeros_like(h).index_put((h > 0).nonzero(as_tuple=True), h[h > 0]),
    "two comparisons": lambda h: torch.where((h > 0) & (h < 9), h, torch.zeros_like(h)),
    "a norm of single numbers": lambda h: (h + h.unsqueeze(-1).norm(dim=-1)) / 2,
    "lp_pool": lambda h: F.lp_pool2d(h, 2, 1),
    "custom function": Mine.apply,
    "by NumPy": lambda h: h * torch.from_numpy(h.detach().numpy() > 0),
    "a branch": lambda h: h if bool(h.sum() > 0) else 2 * h,
    "max_pool with indices": lambda h: F.max_pool2d(h, 2, return_indices=True)[0],
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_is_not_covered_is_reported(name: str, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nets.Plain(UNCOVERED[name]), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()
    )
    nets.seeded(net).double()
    report = kinks(net, X)
    assert report.uncovered
    assert {kink.place for kink in report.uncovered} == {"1 (Plain)"}
    with caplog.at_level(logging.WARNING, logger="trompe"):
        trompe.smooth(net, beta=2.0)(X)
    assert "1 (Plain) is not smoothed" in caplog.text
    for method in ("guided_backprop", "deconvnet"):
        with pytest.raises(TrompeError):
            trompe.explainer(method)(net, X, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "smooth",
    [
        lambda h: F.normalize(h, dim=1),
        lambda h: h * F.cosine_similarity(h, h + 1, dim=1).unsqueeze(1),
        lambda h: h * torch.dist(h[0], torch.zeros_like(h[0])),
        lambda h: F.normalize(F.pad(h, (2, 2, 2, 2)), dim=1),
        lambda h: torch.atan2(h, h.exp()),
        lambda h: torch.logit(torch.sigmoid(h), eps=1e-6),
        lambda h: h + h.float().to(h.dtype),
        lambda h: h.div(h.exp()),
    ],
)
def test_what_is_smooth_is_not_reported(smooth: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nets.Plain(smooth), nn.Conv2d(4, 2, 1), nn.Flatten())
    assert kinks(nets.seeded(net).double(), X).kinks == ()


def least_kept(h: Tensor) -> Tensor:
    return h.topk(2, 1).values[:, -1:]


def assigned(h: Tensor) -> Tensor:
    h = h.clone()
    h[h < least_kept(h)] = 0
    return h


TIED = {
    "torch.Tensor.masked_fill": lambda h: h.masked_fill(h < least_kept(h), 0),
    "torch.where": lambda h: torch.where(h >= h.amax(1, keepdim=True), h, 0.0),
    "torch.Tensor.mul": lambda h: h * (h >= least_kept(h)),
    "torch.Tensor.__setitem__": assigned,
}


@pytest.mark.parametrize("name", TIED)
def test_a_choice_among_equal_numbers_is_named_as_what_it_is(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nets.Plain(TIED[name]), nn.Conv2d(4, 2, 1))
    smoothed = trompe.smooth(nets.seeded(net).double(), beta=2.0)
    with pytest.raises(ModelError) as refused:
        smoothed(X)
    told = str(refused.value)
    assert f"{name} in 1 (Plain) chooses by comparing numbers that are equal" in told
    assert "out of place" not in told


def test_an_attack_says_which_kinks_remain() -> None:
    net = nets.plain().double()
    space = InputSpace((0.5,) * 3, (0.25,) * 3)
    found = trompe.manipulate(net, X, torch.rand(8, 8), input_space=space, iterations=2)
    assert found.provenance["remaining_kinks"] == []
    net[1] = nets.Plain(UNCOVERED["sign"])
    found = trompe.manipulate(net, X, torch.rand(8, 8), input_space=space, iterations=2)
    assert found.provenance["remaining_kinks"] == ["torch.sign in 1 (Plain)"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["scripted", "sign"])
def test_a_smoothing_that_reaches_no_kink_is_refused(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    nets.seeded(net).double()
    model: Any = net
    if name == "scripted":
        model = torch.jit.trace(net, X, check_trace=False)
    else:
        net[1] = nets.Plain(UNCOVERED["sign"])
    with pytest.raises(ModelError, match="none of the model's kinks can be smoothed"):
        trompe.smooth(model, beta=1.0)(X)


def test_an_exported_model_is_smoothed_as_its_module() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    nets.seeded(net).double()
    exported = torch.export.export(net, (X,)).module()
    for beta in (1.0, 30.0):
        expected = trompe.smooth(net, beta=beta, pooling=True)(X)
        nets.close(trompe.smooth(exported, beta=beta, pooling=True)(X), expected, 1e-12)


class Positive(nn.Module):
    """A layer whose weights are held positive."""

    def __init__(self, hold: Any) -> None:
        super().__init__()
        self.first, self.hold = nn.Conv2d(3, 4, 3), hold
        self.weight = nn.Parameter(torch.randn(6, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.arange(6.0, dtype=x.dtype).view(-1, 1, 1) > 2.5  # a comparison of constants
        h = F.conv2d(self.first(x).relu(), self.hold(self.weight))
        return torch.where(mask, h, 2 * h).relu().flatten(1)[:, :5]


@pytest.mark.parametrize(
    "hold",
    [
        torch.relu,
        torch.abs,
        lambda w: w.clamp(0, 0.2),
        lambda w: (2 * w).relu_(),
        lambda w: torch.maximum(w * 1, torch.zeros_like(w)),
        lambda w: w * (w > 0),
        lambda w: torch.where(w > 0, w, 0.1 * w),
    ],
)
def test_weights_are_not_smoothed(hold: Any) -> None:
    net = Positive(hold)
    nets.seeded(net).double()
    ready = Positive(lambda w: w)
    nets.seeded(ready).double()
    ready.weight.data = hold(net.weight.detach())
    for beta in (0.5, 10.0):
        found, expected = (trompe.smooth(m, beta=beta)(X) for m in (net, ready))
        nets.close(found, expected, 1e-13)
    assert not torch.allclose(found, net(X), rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.data.mul_(0.5),
        lambda h: h.detach().clamp_(min=0),
        lambda h: h.detach().view(-1).add_(1),
    ],
)
def test_values_changed_behind_the_gradient_are_refused(change: Any) -> None:
    def function(h: Tensor) -> Tensor:
        h = h * 1
        change(h)
        return h

    net = nets.plain().double()
    net[4] = nets.Plain(function)
    for method in ("gradient", "lrp", "guided_backprop", "smoothgrad"):
        with pytest.raises((ModelError, UnsupportedOp)):
            trompe.explainer(method)(net, X, TARGET)


def test_the_hidden_state_of_a_model_is_found() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x.flatten(1)[:, :4].tanh() * self.count

    from trompe.engine import record

    with pytest.raises(UnsupportedOp, match="recorded pass differ"):
        record(Counts(), X.clone().requires_grad_(True))
    with pytest.raises(TrompeError):
        trompe.explainer("gradient")(Counts(), X, TARGET)


def test_a_half_precise_map_sums_to_one() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        shares = trompe.heatmap(torch.rand(2, 3, 64, 64).to(dtype))
        torch.testing.assert_close(
            shares.double().sum((1, 2)), torch.ones(2).double(), rtol=1e-5, atol=0
        )


def test_an_attack_in_float16_is_refused() -> None:
    with pytest.raises(TrompeError, match="float16"):
        trompe.manipulate(nets.plain().half(), X.half(), torch.rand(8, 8), iterations=2)


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nets.plain()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


def test_mixed_precision_is_refused_by_methods_made_of_rules() -> None:
    x = X.float()
    assert torch.isfinite(trompe.explainer("gradient")(Autocast(), x, TARGET)).all()
    for method in ("lrp", "deeplift"):
        with pytest.raises(ModelError, match="mixed precision"):
            trompe.explainer(method)(Autocast(), x, TARGET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("act", [F.relu, F.relu6, F.hardswish, lambda h: F.max_pool2d(h, 3, 1, 1)])
def test_a_smoothed_part_of_a_model_has_no_kinks(act: Any, pooling: bool, dtype: Any) -> None:
    """The operations that its stand-ins are made of are none of the model's."""
    inner = nets.seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nets.Plain(act))).to(dtype)
    head = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 3))).to(dtype)
    smoothed = trompe.smooth(inner, beta=3.0, pooling=pooling)
    whole, x = nn.Sequential(smoothed, head).eval(), X.to(dtype)
    assert not kinks(whole, x).uncovered
    expected = head(smoothed(x))
    assert torch.equal(trompe.smooth(whole, beta=50.0)(x), expected)
    gradient = trompe.explainer("gradient")
    found = gradient(trompe.smooth(whole, beta=50.0), x, TARGET % 3)
    start = x.clone().requires_grad_(True)
    scores = head(smoothed(start)).gather(1, (TARGET % 3).view(-1, 1)).sum()
    torch.testing.assert_close(found, torch.autograd.grad(scores, start)[0])
