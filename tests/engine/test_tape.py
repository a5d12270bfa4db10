"""The record of a forward pass: what it holds, and what it refuses."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import record
from trompe.errors import ModelError, UnsupportedOp


def inputs() -> Tensor:
    return nets.images().requires_grad_(True)


def test_calls_in_order_with_their_edges() -> None:
    model, x = nets.plain().double(), inputs()
    tape, logits = record(model, x)
    names = [call.func.__name__ for call in tape.calls]
    convolution, head = ["conv2d", "relu"], ["flatten", "linear", "relu", "linear"]
    assert names == [*convolution, F.max_pool2d.__name__, *convolution, *head]
    assert [call.index for call in tape.calls] == list(range(9))
    assert tape.calls[0].edges[0][0] is x
    assert tape.calls[-1].out is logits
    for before, after in zip(tape.calls, tape.calls[1:], strict=False):
        ((tensor, alias),) = after.edges
        assert tensor is before.out
        assert alias is not tensor
        assert torch.equal(alias, tensor)
    assert tape.calls[0].argument(1, "weight") is model[0].weight
    nets.close(logits, model(x), 1e-14)
    expected = F.conv2d(tape.calls[3].edges[0][1], model[3].weight)
    nets.close(tape.calls[3].call(a2=None), expected, 1e-14)


def test_what_does_not_depend_on_the_input_is_not_recorded() -> None:
    weight = torch.ones(8, 8, dtype=torch.float64)
    tape, _ = record(nets.Plain(lambda x: (x @ (weight + 1).relu()).flatten(1)), inputs())
    assert len(tape.calls) == 2


@pytest.mark.parametrize("form", nets.FORMS)
def test_in_place_calls_are_recorded_out_of_place(form: str) -> None:
    model, x = nets.forms(form).double(), inputs()
    tape, logits = record(model, x)
    nets.close(logits, model(x), 1e-14)
    values = [[t.detach().clone() for t in call.outputs] for call in tape.calls]
    for call, kept in zip(tape.calls, values, strict=True):
        assert call.kwargs.get("inplace") in (None, False)
        again = call.func(*call.args, **call.kwargs)
        torch.testing.assert_close(again, kept[0])  # nothing it saw was overwritten later
    (grad,) = torch.autograd.grad(logits.sum(), x)
    nets.close(grad, torch.autograd.grad(model(x).sum(), x)[0], 1e-12)


def test_an_overwritten_output_is_returned_as_it_ended() -> None:
    def function(x: Tensor) -> Tensor:
        h = x.flatten(1)[:, :4] * 1
        h.relu_()
        return h

    for model in (nets.Plain(function), trompe.smooth(nets.Plain(function), beta=1e6)):
        _, logits = record(model, inputs())
        nets.close(logits, inputs().flatten(1)[:, :4].relu(), 1e-5)
        nets.close(model(inputs()), logits, 1e-12)


def test_a_change_through_a_view_that_is_used_alone_is_right() -> None:
    def function(x: Tensor) -> Tensor:
        h = 2 * x
        second, first = h[:, :, 4:], h[:, :, :4]
        first += 1
        return torch.cat([first, first * second], dim=1).flatten(1)

    x = inputs()
    _, logits = record(nets.Plain(function), x)
    nets.close(logits, function(x), 1e-14)


def test_a_change_through_a_view_is_seen_by_the_base() -> None:
    def function(x: Tensor) -> Tensor:
        h = 2 * x
        h[:, :1].add_(5)
        return h.flatten(1)

    _, logits = record(nets.Plain(function), inputs())
    nets.close(logits, function(inputs()), 1e-14)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.flatten(1), 1),
        lambda x: {"logits": x},
        lambda x: x.detach().flatten(1),
        lambda x: torch.zeros(2, 4),
        lambda x: x.argmax(1),
    ],
)
def test_outputs_that_are_no_logits_are_refused(function: object) -> None:
    with pytest.raises(ModelError, match=r"Plain does not return .* \[B, K\]"):
        record(nets.Plain(function), inputs())


def test_an_unknown_operation_is_named_with_its_place() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), Block()), nn.Flatten())
    with pytest.raises(UnsupportedOp) as caught:
        trompe.explainer("lrp")(model, nets.images(), torch.tensor([0, 1]))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.place == "'1.1' (Block)"
    assert caught.value.family == "lrp"
    assert "trompe.rules.lrp.RULES" in message
    assert "fft2" in message or "real" in message.lower() or "__get__" in message


class Hidden(torch.autograd.Function):
    """Bypasses torch functions, and so the record."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return 2 * grad


@pytest.mark.parametrize("name", ["lrp", "guided_backprop"])
def test_what_bypasses_the_record_is_refused_and_not_left_out(name: str) -> None:
    class Bypass(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + Hidden.apply(x)

    model = nn.Sequential(nn.ReLU(), Bypass(), nn.Flatten())
    for net in (model, nn.Sequential(nn.Flatten(), nets.Plain(Hidden.apply))):
        with pytest.raises(UnsupportedOp, match=r"'Hidden' at .* cannot be recorded"):
            trompe.explainer(name)(net, nets.images(), torch.tensor([0, 1]))
        assert trompe.explainer("gradient")(net, nets.images(), torch.tensor([0, 1])).any()


def test_weights_with_a_graph_of_their_own_are_no_obstacle() -> None:
    early = torch.randn(4, 192, dtype=torch.float64, requires_grad=True).exp()
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)
    model = nets.Plain(lambda x: F.linear(x.flatten(1), early * scale))
    for x in (inputs(), inputs() * 1):
        tape, logits = record(model, x)
        assert [call.func.__name__ for call in tape.calls] == ["flatten", "linear"]
        nets.close(logits, model(x), 1e-14)


def test_rules_may_be_added() -> None:
    from trompe.rules.lrp import RULES
    from trompe.rules.passing import identity

    model = nets.plain().double()

    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x)

    model[1] = Sine()
    x, target = nets.images(), torch.tensor([0, 1])
    with pytest.raises(UnsupportedOp, match=r"sin.*'1' \(Sine\)"):
        trompe.explainer("lrp")(model, x, target)
    RULES[torch.sin] = identity
    try:
        assert trompe.explainer("lrp")(model, x, target).any()
    finally:
        del RULES[torch.sin]


def test_several_outputs_and_unused_ones() -> None:
    def function(x: Tensor) -> Tensor:
        first, second, _ = x.split([2, 3, 3], dim=2)
        values, _ = first.max(dim=2)
        return (values.sum(dim=2) * second.mean(dim=(2, 3))).flatten(1)

    from trompe.engine import RuleSet, sweep, vjp

    x = inputs()
    tape, logits = record(nets.Plain(function), x)
    relevance = sweep(tape, logits, torch.ones_like(logits), RuleSet("test", {}, default=vjp))
    nets.close(relevance, torch.autograd.grad(function(x).sum(), x)[0], 1e-14)


def test_the_sweep_is_the_gradient_if_every_rule_is() -> None:
    from trompe.engine import RuleSet, sweep, vjp

    for make in (nets.plain, nets.forms, nets.normed):
        model, x = make().double(), inputs()
        tape, logits = record(model, x)
        relevance = sweep(tape, logits, torch.ones_like(logits), RuleSet("test", {}, default=vjp))
        nets.close(relevance, torch.autograd.grad(model(x).sum(), x)[0], 1e-13)
