"""Sums in chunks: the same number and the same derivative, whatever the chunks."""

from __future__ import annotations

from collections.abc import Callable

import nets
import pytest
import torch
from torch import Tensor

import trompe
from trompe.engine import smooth
from trompe.engine.mean import chunked_sum

X, TARGET = 0.6 * nets.images(), torch.tensor([2, 1])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_recomputed_as_kept(count: int) -> None:
    def part(x: Tensor, i: int) -> Tensor:
        return (x * (i + 1)).sin() * x.sum()

    results = []
    for recompute in (False, True):
        x = X.clone().requires_grad_(True)
        total = chunked_sum(x, part, count, recompute=recompute)
        (grad,) = torch.autograd.grad(total.square().sum(), x)
        results.append((total.detach(), grad))
    nets.close(results[1][0], results[0][0], 1e-12)
    nets.close(results[1][1], results[0][1], 1e-12)
    assert torch.autograd.gradcheck(
        lambda x: chunked_sum(x, part, count, recompute=True),
        torch.rand(4, dtype=torch.float64, requires_grad=True),
    )


def test_parts_that_do_not_depend_on_the_input() -> None:
    x = torch.ones(3, requires_grad=True)
    total = chunked_sum(x, lambda x, i: torch.ones(3) if i else 2 * x, 2, recompute=True)
    (grad,) = torch.autograd.grad(total.sum(), x)
    assert total.tolist() == [3, 3, 3]
    assert grad.tolist() == [2, 2, 2]


def test_no_graph_is_kept_between_the_chunks() -> None:
    x = torch.ones(3, requires_grad=True)
    total = chunked_sum(x, lambda x, i: x.exp(), 3, recompute=True)
    leaves = [node for node, _ in total.grad_fn.next_functions if node is not None]
    assert [node.variable is x for node in leaves] == [True]


METHODS: dict[str, Callable[[int], trompe.Explainer]] = {
    "integrated_grad": lambda chunk: trompe.explainer("integrated_grad", steps=5, chunk=chunk),
    "logit": lambda chunk: trompe.explainer(
        "integrated_grad", steps=5, chunk=chunk, score="logit", baseline=0.3 * torch.ones(3, 1, 1)
    ),
    "smoothgrad": lambda chunk: trompe.explainer("smoothgrad", samples=5, chunk=chunk),
    "smoothgrad of lrp": lambda chunk: trompe.explainer(
        "smoothgrad", base=trompe.explainer("lrp"), samples=3, chunk=chunk
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_maps_and_their_derivatives_do_not_depend_on_the_chunks(name: str) -> None:
    model = smooth(nets.plain().double(), beta=3.0)
    results = []
    for chunk in (64, 4, 1):
        x = X.clone().requires_grad_(True)
        relevance, logits = METHODS[name](chunk).explain(model, x, TARGET)
        (grad,) = torch.autograd.grad(relevance.square().sum() + logits.sum(), x)
        plain = METHODS[name](chunk)(model, X, TARGET)
        results.append((relevance.detach(), grad, logits.detach(), plain))
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            nets.close(one, other, 1e-11)
