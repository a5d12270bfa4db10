"""The records of operations: their kinks and derivatives are those of PyTorch's functions."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import trompe
from trompe.engine.activations import ACTIVATIONS, RELU
from trompe.engine.inplace import out_of_place
from trompe.engine.masks import Memory, note
from trompe.engine.operations import Operation
from trompe.engine.reading import read
from trompe.engine.selections import BY_FUNCTION, OPERATIONS

SETTINGS = {
    "hardtanh": (-0.5, 1.25),
    "lower bound": (0.5, 0.5),
    "upper bound": (0.75,),
    "leaky relu": (0.2,),
    "elu": (1.5,),
    "celu": (1.5,),
    "soft shrinkage": (0.5,),
}
OF_ONE = [operation for operation in ACTIVATIONS if operation.gate is not None]


@pytest.mark.parametrize("operation", OF_ONE, ids=lambda operation: operation.name)
def test_gate_and_kinks(operation: Operation) -> None:
    """The gate is the derivative, which jumps at the kinks and nowhere else."""
    settings = SETTINGS.get(operation.name, ())
    assert operation.gate is not None
    assert operation.kinks is not None
    kinks = operation.kinks(*settings)
    x = (torch.arange(-4096, 4096, dtype=torch.float64) / 1024 + 2**-11).requires_grad_(True)
    (slope,) = torch.autograd.grad(operation.function(x, *settings).sum(), x)
    nets.close(operation.gate(x.detach(), *settings), slope, 1e-7)  # PyTorch's 1/6 is coarse
    jumps = (slope[1:] - slope[:-1]).abs() > 0.01
    places = ((x[1:] + x[:-1]) / 2)[jumps].tolist()
    assert places == pytest.approx(list(kinks))


@pytest.mark.parametrize("operation", OF_ONE, ids=lambda operation: operation.name)
def test_stand_in(operation: Operation) -> None:
    """It tends to the function, and its derivative to the gate away from the kinks."""
    settings = SETTINGS.get(operation.name, ())
    assert operation.gate is not None
    x = (torch.arange(-40, 40, dtype=torch.float64) / 10 + 0.033).requires_grad_(True)
    out = operation.stand_in(1e4, x, *settings)
    nets.close(out, operation.function(x, *settings), 1e-4)
    (slope,) = torch.autograd.grad(out.sum(), x)
    nets.close(slope, operation.gate(x.detach(), *settings), 1e-6)


def test_a_recorded_function_has_one_record() -> None:
    for operation in OPERATIONS:
        others = {f for other in OPERATIONS if other is not operation for f in other.recorded}
        assert not others & set(operation.recorded)
    assert BY_FUNCTION[torch.relu] is RELU


def _read(call: object, h: Tensor) -> list[str]:
    """The names of the operations that a function mode reads in a call."""
    found: list[str] = []
    memory = Memory()

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: object, types: object, args: object = (), kwargs: object = None
        ) -> object:
            (plain, a, k), _ = out_of_place(func, args, kwargs or {})  # type: ignore[arg-type]
            reading = read(memory, plain, a, k)
            if reading is not None:
                found.append(reading.operation.name)
            out = func(*args, **(kwargs or {}))  # type: ignore[operator]
            note(memory, func, args, kwargs or {}, out)  # type: ignore[arg-type]
            return out

    with Mode():
        call(h)  # type: ignore[operator]
    return found


RELUS = {
    "relu_": lambda h: F.relu_(h * 1),
    "clip": lambda h: torch.clip(h, min=0),
    "clip_": lambda h: (h * 1).clip_(0),
    "maximum": lambda h: torch.maximum(torch.zeros_like(h), h),
    "fmax": lambda h: torch.fmax(h, h.new_zeros(())),
    "max of two": lambda h: torch.max(h, torch.zeros_like(h)),
    "clamp to a tensor": lambda h: torch.clamp(h, torch.zeros_like(h)),
    "threshold_": lambda h: F.threshold_(h * 1, 0, 0),
    "leaky of slope 0": lambda h: F.leaky_relu(h, 0.0),
    "aten": lambda h: torch.ops.aten.relu_.default(h * 1),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "where, reversed": lambda h: torch.where(h <= 0, torch.zeros((), dtype=h.dtype), h),
    "method where": lambda h: h.where(h > 0, torch.zeros((), dtype=h.dtype)),
    "product": lambda h: h * (h > 0),
    "product in place": lambda h: (h * 1).mul_(h > 0),
    "numbers": lambda h: (h >= 0).to(h.dtype) * h,
    "negation": lambda h: h * ~(h < 0),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0),
}


@pytest.mark.parametrize("name", [n for n in RELUS if n != "product in place"])
def test_a_relu_in_any_spelling(name: str) -> None:
    h = nets.images()
    assert _read(RELUS[name], h)[-1] == "relu"
    nets.close(RELUS[name](h), h.relu(), 1e-15)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda h: torch.where(h > 0, h, 0.1 * h), "leaky relu"),
        (lambda h: torch.where(h > 0.5, h, 0.5), "lower bound"),
        (lambda h: torch.minimum(h, torch.full_like(h, 6)), "upper bound"),
        (lambda h: h.pow(2).sqrt(), "abs"),
        (lambda h: (h * h) ** 0.5, "abs"),
        (lambda h: F.threshold(h, 0.5, 0.0), "choice by a comparison"),
        (lambda h: torch.where(h > 0, h.exp(), h), "choice by a comparison"),
        (lambda h: h * (1 - (h <= 0).double()), "choice by a comparison"),
    ],
)
def test_other_spellings(call: object, expected: str) -> None:
    assert expected in _read(call, nets.images())


@pytest.mark.parametrize(
    "call",
    [
        lambda h: h.clamp(min=1e-6),
        lambda h: h.long().clamp(min=0),
        lambda h: F.rrelu(h, training=True),
        lambda h: h * (torch.arange(8) > 3),
        lambda h: torch.where(torch.arange(8) > 3, h, 0.0),
        lambda h: (h * h + 1).sqrt(),
        lambda h: h * 2,
    ],
)
def test_what_is_no_kink_of_the_model_is_not_read(call: object) -> None:
    assert not _read(call, nets.images())


@pytest.mark.parametrize("name", RELUS)
def test_each_spelling_is_smoothed_and_explained_as_a_relu(name: str) -> None:
    net, other = nets.plain().double(), nets.plain().double()
    net[1] = net[4] = net[7] = nets.Plain(RELUS[name])
    x, target = nets.images(), torch.tensor([0, 3])
    found, expected = (trompe.smooth(m, beta=3.0)(x) for m in (net, other))
    if name != "product in place":
        nets.close(found, expected, 1e-12)
    assert not torch.allclose(found, net(x), rtol=1e-3)
    if name not in ("product in place",):
        for method in ("guided_backprop", "deconvnet", "deeplift", "lrp"):
            explain = trompe.explainer(method)
            nets.close(explain(net, x, target), explain(other, x, target), 1e-9)
