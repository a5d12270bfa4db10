"""Two spellings of one function have one map, or are refused in one line."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import record, smooth
from trompe.engine.catalogue import of_numbers, of_rows
from trompe.errors import TrompeError

sys.path.insert(0, str(Path(__file__).parent))
from spelled_functions import GROUPS, Spelled

METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "gradient": ({}, 1e-7),
    "lrp": ({}, 1e-6),
    "lrp epsilon": ({"composite": "epsilon"}, 2e-4),  # its stabiliser counts each operation
    "lrp attn": ({"composite": "attn"}, 2e-4),
    "deeplift": ({}, 1e-6),
    "guided_backprop": ({}, 1e-6),
    "deconvnet": ({}, 1e-6),
    "excitation_backprop": ({}, 2e-5),
}
WAYS_OUT = ("explain with", "return them", "write it without", "add a rule")
SPELLINGS = [
    (kind, plain, spelling)
    for kind, groups in GROUPS.items()
    for plain, spellings in groups.items()
    for spelling in spellings
]


def image() -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 6, 6, generator=draw, dtype=torch.float64)


def map_of(model: nn.Module, method: str) -> Tensor | str:
    """The map, or the words of the refusal."""
    explainer = trompe.explainer(method.split()[0], **METHODS[method][0])
    try:
        return explainer(model, image(), torch.tensor([0, 2])).detach()
    except TrompeError as error:
        return str(error)


@cache
def plain_maps(kind: str, plain: str) -> dict[str, Tensor | str]:
    model = Spelled(kind, plain).eval()
    return {method: map_of(model, method) for method in METHODS}


@pytest.mark.parametrize(("kind", "plain", "spelling"), SPELLINGS, ids=lambda t: t[:60])
def test_two_spellings_have_one_map(kind: str, plain: str, spelling: str) -> None:
    model, twin = Spelled(kind, spelling).eval(), Spelled(kind, plain).eval()
    torch.testing.assert_close(model(image()), twin(image()), rtol=1e-9, atol=1e-9)
    answered = []
    for method, (_, tolerance) in METHODS.items():
        found, expected = map_of(model, method), plain_maps(kind, plain)[method]
        if isinstance(found, str):
            assert any(words in found for words in WAYS_OUT), found
            continue
        assert not isinstance(expected, str), f"{method} answers one of two spellings: {expected}"
        size = float(expected.abs().max())
        assert float((found - expected).abs().max()) <= tolerance * size, method
        answered.append(method)
    odd = any(word in spelling for word in ("torch.ones(h.shape", "heaviside", "amin("))
    assert odd or {"gradient", "lrp", "lrp attn", "excitation_backprop"} <= {*answered}


def answered(spelling: str, kind: str = "image", method: str = "lrp epsilon") -> Tensor:
    found = map_of(Spelled(kind, spelling).eval(), method)
    assert isinstance(found, Tensor), found
    return found


def test_a_softmax_that_is_not_recognised_is_refused() -> None:
    for spelling in ("(e := h.exp()) / (e @ torch.ones_like(e))", "(h - h.sum(-1, True)).exp()"):
        for method in ("lrp", "lrp epsilon", "lrp attn", "excitation_backprop"):
            found = map_of(Spelled("attention", spelling).eval(), method)
            assert isinstance(found, str), method
            assert "functional.softmax" in found


def test_a_straight_through_derivative_stays_one() -> None:
    """Its value is that of a ReLU, and its derivative is that of the identity."""
    spelling = "h + (F.relu(h) - h).detach()"
    for method in ("gradient", "guided_backprop", "lrp epsilon"):
        found, relu = (answered(s, method=method) for s in (spelling, "F.relu(h)"))
        assert not torch.allclose(found, relu), method


def test_the_mean_of_some_rows_is_no_centre() -> None:
    """Like a layer norm, and none: its parts are shared out one by one."""
    spelling = "(h - h[..., :2].mean(-1, keepdim=True)) / (h.var(-1, keepdim=True) + 1e-5).sqrt()"
    found = answered(spelling, "tokens")
    assert not torch.allclose(found, answered("F.layer_norm(h, (8,))", "tokens"), rtol=0.1)


class Recorded(nn.Module):
    """A function of h alone."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.function = Spelled("image", spelling).function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self).flatten(1)


def operations(model: nn.Module, x: Tensor) -> list[str]:
    tape, _ = record(model, x.requires_grad_(True))
    return [call.func.__name__ for call in tape.calls if "flatten" not in call.func.__name__]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h + F.relu(-h)", "relu"),
        ("(h.abs() + h) / 2", "relu"),
        ("h / (1 + torch.exp(-h))", "silu"),
        ("torch.log(torch.exp(2 * h) + 1) / 2", "softplus"),
        ("torch.where(h > 0, 1.5 * h, 1.5 * (h.exp() - 1)) / 1.5", "elu"),
        ("(h - h.amax(1, True)).exp() / (h - h.amax(1, True)).exp().sum(1, True)", "softmax"),
        ("h * (h.square().mean(1, True) + 1e-3) ** -0.5", "rms_norm"),
    ],
)
def test_a_function_is_one_operation_of_the_record(spelling: str, name: str) -> None:
    x = torch.linspace(-3, 2.9, 60, dtype=torch.float64).view(2, 30)
    assert operations(Recorded(spelling), x) == [name]


def test_a_relu_of_a_relu_stays_two() -> None:
    assert operations(Recorded("F.relu(F.relu(h))"), torch.randn(2, 8)) == ["relu", "relu"]


def test_a_smoothed_function_is_the_smoothed_one() -> None:
    """Also for guided backpropagation, which treats a ReLU and its parts differently."""
    for method in ("guided_backprop", "gradient", "lrp"):
        found, expected = (
            trompe.explainer(method)(
                smooth(Spelled("image", spelling).eval(), beta=4.0), image(), torch.tensor([0, 2])
            )
            for spelling in ("h + F.relu(-h)", "F.relu(h)")
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_what_is_found_out_is_found_out_once() -> None:
    model = Spelled("attention", "h.exp() / h.exp().sum(-1, keepdim=True)").eval()
    answered_once = map_of(model, "lrp")
    before = of_numbers.cache_info().misses + of_rows.cache_info().misses
    again = map_of(model, "lrp")
    assert isinstance(answered_once, Tensor)
    assert isinstance(again, Tensor)
    torch.testing.assert_close(again, answered_once)
    assert of_numbers.cache_info().misses + of_rows.cache_info().misses == before


def test_a_weight_behind_a_normalisation_keeps_its_derivative() -> None:
    """The map of a layer norm that is written out can be trained like the map of the module."""
    derivatives = []
    for spelling in (
        "F.layer_norm(h, (8,), p.v, p.c)",
        "F.layer_norm(h, (8,)) * p.v + p.c",
    ):
        model = Spelled("tokens", spelling).eval()
        found = trompe.explainer("lrp", composite="epsilon")(
            model, image().requires_grad_(True), torch.tensor([0, 2])
        )
        derivatives.append(torch.autograd.grad(found.square().sum(), (model.v, model.c)))
    for found, expected in zip(*derivatives, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
