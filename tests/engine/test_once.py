"""What was found out about a model is not taken for another's that has its parts' ids."""

from __future__ import annotations

import gc
from collections.abc import Callable

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import trompe
from trompe.engine.once import Answers, once


class Part:
    pass


def test_an_answer_is_gone_with_its_objects() -> None:
    answers, part, stays = Answers[int](), Part(), Part()
    answers.keep("both", 1, [part, stays])
    answers.keep("one", 2, [stays])
    del part
    gc.collect()
    assert dict(answers) == {"one": 2}


def test_an_exchanged_module_is_looked_at_anew() -> None:
    """Its id is often that of the one before, which was freed."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2)
    asked = []
    for number in range(20):
        net[1] = nn.Linear(12, 3)
        gc.collect()
        once(net, "question", (x,), {}, lambda n=number: asked.append(n))  # type: ignore[misc]
    assert asked == list(range(20))


def test_a_module_put_in_place_of_another_is_checked() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Identity()), torch.rand(1, 3, 2, 2)
    refused = 0
    for chance in (False, True) * 10:
        net[2] = nn.Dropout(0.5) if chance else nn.Identity()
        net[2].train(chance)
        gc.collect()
        try:
            trompe.explainer("gradient")(net, x, 0)
        except trompe.errors.ModelError:
            refused += 1
            assert chance
    assert refused == 10


class Noisy(nn.Module):
    """A parametrization that draws."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * torch.randn_like(weight)


def _patch(net: nn.Sequential) -> None:
    layer = net[1]
    layer.forward = lambda h: F.dropout(F.relu(h), 0.5)  # type: ignore[method-assign]


ADDED: dict[str, Callable[[nn.Sequential], object]] = {
    "forward hook": lambda net: net[1].register_forward_hook(lambda *given: F.dropout(given[2])),
    "pre-hook": lambda net: net[1].register_forward_pre_hook(lambda _, args: F.dropout(args[0])),
    "parametrization": lambda net: parametrize.register_parametrization(net[0], "weight", Noisy()),
    "forward of its own": _patch,
}


@pytest.mark.parametrize("kind", ADDED)
@pytest.mark.parametrize("smoothed", [False, True])
def test_what_is_added_after_the_first_use_is_noticed(kind: str, smoothed: bool) -> None:
    net = nets.plain().double()
    model = trompe.smooth(net, beta=5.0) if smoothed else net
    gradient = trompe.explainer("gradient")
    gradient(model, nets.images(), 0)
    ADDED[kind](net)
    with pytest.raises(trompe.errors.ModelError, match="chance"):
        gradient(model, nets.images(), 0)


def test_a_hook_put_in_place_of_another_is_noticed() -> None:
    net, gradient = nets.plain().double(), trompe.explainer("gradient")
    handle = net[1].register_forward_hook(lambda *given: given[2] * 2)
    gradient(net, nets.images(), 0)
    handle.remove()
    net[1].register_forward_hook(lambda *given: F.dropout(given[2]))
    with pytest.raises(trompe.errors.ModelError, match="chance"):
        gradient(net, nets.images(), 0)


def test_the_smoothing_of_a_model_that_was_changed_is_checked_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Called without a method, whose own checks come first."""
    net = nets.plain().double()
    smoothed = trompe.smooth(net, beta=5.0)
    smoothed(nets.images())
    assert "is not smoothed" not in caplog.text
    net[1].forward = torch.jit.trace(F.relu, (torch.rand(2, 3).double(),))
    smoothed(nets.images())
    assert "1 (ReLU) is not smoothed" in caplog.text
