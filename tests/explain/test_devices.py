"""Nothing assumes the CPU: seen on the device ``meta``, whose tensors have no numbers to read.

A number read there is an error, and a tensor left on the CPU is noticed. Both would make a GPU
wait in every step of an attack, or fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import trompe
from trompe.engine import smooth
from trompe.explain import Method, explainers

OPTIONS: dict[str, Callable[[nn.Module], dict[str, Any]]] = {
    "integrated_grad": lambda model: {"steps": 3},
    "smoothgrad": lambda model: {"samples": 2},
    "pattern_attribution": lambda model: {"patterns": nets.patterns_of(model)},
    "pattern_net": lambda model: {"patterns": nets.patterns_of(model)},
}
EACH = [
    pytest.param(name, make, id=f"{name}-{make.__name__}")
    for name in explainers.names()
    for make in (nets.plain, nets.normed)
    if name != "attention_rollout"  # explains networks with attention only
    and not (make is nets.normed and name.startswith("pattern"))
]


def build(name: str, model: nn.Module) -> Method:
    return trompe.explainer(name, **OPTIONS.get(name, lambda model: {})(model))


class Watch(TorchDispatchMode):
    """Notes the operations that take a tensor from the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in leaves):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "make"), EACH)
@pytest.mark.parametrize("smoothed", [False, True])
def test_a_step_reads_no_numbers_and_copies_none(
    name: str, make: Callable[[], nn.Module], smoothed: bool
) -> None:
    original = make()
    method = build(name, original)
    model = original.to("meta")
    if smoothed:
        model = smooth(model, beta=5.0, pooling=1.0)
    x = nets.images(2, dtype=torch.float32).to("meta").requires_grad_(True)
    target = torch.zeros(2, dtype=torch.int64, device="meta")

    def step() -> None:
        relevance, logits = method.explain(model, x, target)
        loss = trompe.types.relative(relevance).square().sum() + logits.softmax(1).sum()
        (grad,) = torch.autograd.grad(loss, x)
        moved = trompe.InputSpace().clamp(x - grad)
        assert moved.device.type == logits.device.type == "meta"

    step()  # draws and constants are made once
    with Watch() as watch:
        step()
    assert watch.found == []


def test_draws_are_those_of_their_seed_and_kept() -> None:
    from trompe.engine.mean import drawn

    first = drawn("normal", 3, (2, 1, 4), torch.float32, torch.device("cpu"))
    expected = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.equal(first, expected.float())
    assert drawn("normal", 3, (2, 1, 4), torch.float32, torch.device("cpu")) is first
    with torch.inference_mode():
        made = drawn("uniform", 99, (2, 3), torch.float64, torch.device("cpu"))
    assert not made.is_inference()
    assert float(made.abs().max()) <= 1
