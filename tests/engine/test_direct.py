"""Maps without a graph by one backward pass: the same as by the record, or left to the record."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.engine.direct import NotDirect, directly
from trompe.engine.sweep import RuleSet, relevance_of
from trompe.explain.base import one_hot
from trompe.rules.deconvnet import deconvnet_rules
from trompe.rules.guided import guided_rules

RULES = [guided_rules(), deconvnet_rules()]
TARGET = torch.tensor([2, 1])
each_method = pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.name)


def inputs() -> Tensor:
    return nets.images().requires_grad_(True)


def seed(logits: Tensor) -> Tensor:
    return one_hot(logits, TARGET).abs()


def both(model: nn.Module, rules: RuleSet) -> tuple[Tensor, Tensor]:
    """The map by one backward pass, which must not give up, and by the record."""
    assert rules.hooks is not None
    found, logits = directly(model, inputs(), seed, rules.hooks)
    expected, _ = relevance_of(model, inputs(), seed, lambda _: rules, keep=True)
    nets.close(logits, model(nets.images()), 1e-13)
    assert not found.requires_grad
    return found, expected.detach()


class Odd(nn.Module):
    """Activations in the ways that models write them."""

    def forward(self, x: Tensor) -> Tensor:
        a = (x - 0.2).clamp(min=0)
        b = torch.clamp_min(x * 1.5, 0) + torch.relu(-a + 0.3)
        c = b * 2
        c.relu_()
        c = c + a
        d = (c - 0.5).clamp_(min=0)
        return (d.flatten(1).relu() * 1.1)[:, :4] + c.flatten(1)[:, 4:8]


MODELS: list[tuple[str, nn.Module]] = [
    ("plain", nets.plain()),
    ("normed", nets.normed()),
    ("odd", Odd()),
    *((form, nets.forms(form)) for form in nets.FORMS),
]


@each_method
@pytest.mark.parametrize("beta", [None, 3.0])
@pytest.mark.parametrize(("name", "model"), MODELS, ids=[name for name, _ in MODELS])
def test_as_the_record(name: str, model: nn.Module, beta: float | None, rules: RuleSet) -> None:
    model = model.double()
    found, expected = both(model if beta is None else smooth(model, beta=beta), rules)
    nets.close(found, expected, 1e-12)
    assert found.any()


class Bypass(torch.autograd.Function):
    """A ReLU that no function mode sees."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def changed_by_a_view(x: Tensor) -> Tensor:
    h = 2 * x
    h[:, :1].add_(5)
    return h.flatten(1)


def overwritten(x: Tensor) -> Tensor:
    h = (2 * x).sigmoid()
    out = h.flatten(1) * 1
    h += 1  # sigmoid's derivative needs the old value
    return out + h.flatten(1)


@each_method
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + Bypass.apply(x),
        lambda x: Bypass.apply(x).flatten(1),
        lambda x: torch.relu_(x).flatten(1),
        lambda x: x.view_as(x).relu_().flatten(1),
        changed_by_a_view,
        overwritten,
        lambda x: torch.jit.trace(torch.relu, x.detach(), check_trace=False)(x).flatten(1),
        lambda x: (x.flatten(1), 1),
        lambda x: x.detach().flatten(1),
    ],
)
def test_what_cannot_be_vouched_for_is_left_to_the_record(function: object, rules: RuleSet) -> None:
    assert rules.hooks is not None
    x = nets.images()
    with pytest.raises(NotDirect):
        directly(nets.Plain(function), x.clone().requires_grad_(True), seed, rules.hooks)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_what_is_left_to_the_record_has_its_answer(name: str) -> None:
    x = nets.images()
    for function in (overwritten, lambda x: x.relu_().flatten(1)):
        found = trompe.explainer(name)(nets.Plain(function), x, TARGET)
        torch.testing.assert_close(x, nets.images())
        wanted = trompe.explainer(name)(
            nets.Plain(function), x.clone().requires_grad_(True), TARGET
        )
        nets.close(found, wanted.detach(), 1e-12)


def test_weights_with_a_graph_of_their_own_have_their_answer() -> None:
    early = torch.randn(4, 192, dtype=torch.float64, requires_grad=True).exp()
    model = nets.Plain(lambda x: nn.functional.linear(x.flatten(1), early).relu())
    with torch.no_grad():
        found = trompe.explainer("guided_backprop")(model, nets.images(), TARGET)
    assert found.any()


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_no_hook_is_used_where_a_graph_is_wanted(name: str) -> None:
    model, method = smooth(nets.plain().double(), beta=2.0), trompe.explainer(name)

    def corner(x: Tensor) -> Tensor:
        return method(model, x, TARGET)[:, :, :2, :2]

    assert corner(inputs()).requires_grad
    assert torch.autograd.gradcheck(corner, (inputs(),), fast_mode=True)
