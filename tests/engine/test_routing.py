"""Lean pooling and concatenation against PyTorch's own, in value and derivatives of both orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.lean import Lean, Once

POOLS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": (3, 2), "stride": [1, 2], "padding": (1, 0), "dilation": 2},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def images(layout: torch.memory_format, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 7, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=layout).requires_grad_(True)


def agrees(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The lean form of ``function`` against its plain one, to the third derivative."""
    results = []
    for lean in (True, False):
        if lean:
            with Lean():
                out = function(x)
        else:
            out = function(x)
        terms = [out]
        for power in (3, 4, 3):
            (grad,) = torch.autograd.grad(terms[-1].pow(power).sum(), x, create_graph=True)
            terms.append(grad)
        results.append([t.detach() for t in terms])
    for found, expected in zip(*results, strict=True):
        nets.close(found, expected, 1e-12)


@pytest.mark.parametrize("settings", POOLS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_pooling_as_pytorch(settings: dict[str, Any], layout: torch.memory_format) -> None:
    for pool in (F.max_pool2d, torch.max_pool2d):
        agrees(lambda x, pool=pool: pool(x.square() + x, **settings), images(layout))
    with Lean():
        out = F.max_pool2d(images(layout), **settings)
    assert "_MaxPool" in type(out.grad_fn).__name__
    assert torch.equal(out, F.max_pool2d(images(layout), **settings))


@pytest.mark.parametrize("settings", POOLS, ids=str)
def test_pooling_derivatives(settings: dict[str, Any]) -> None:
    def pooled(x: Tensor) -> Tensor:
        with Lean():
            return F.max_pool2d(x, **settings)

    x = images(torch.contiguous_format)
    assert torch.autograd.gradcheck(pooled, x)
    assert torch.autograd.gradgradcheck(pooled, x)


def test_ties_go_where_pytorch_sends_them() -> None:
    x = torch.zeros(1, 2, 4, 4).requires_grad_(True)
    with Lean():
        (found,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    (expected,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    assert torch.equal(found, expected)


def test_pooling_with_indices_is_left_alone() -> None:
    x = images(torch.contiguous_format)
    with Lean():
        found = F.max_pool2d(x, 2, return_indices=True)
    for one, other in zip(found, F.max_pool2d(x, 2, return_indices=True), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_concatenation_as_pytorch(dim: int) -> None:
    def joined(x: Tensor) -> Tensor:
        return torch.cat([x.square(), torch.ones_like(x), 2 * x + x.pow(3)], dim=dim)

    agrees(joined, images(torch.contiguous_format))
    with Lean():
        assert "_Concatenation" in type(joined(images(LAYOUTS[0])).grad_fn).__name__


@pytest.mark.parametrize("name", ["cat", "concat", "concatenate"])
def test_concatenation_by_any_name(name: str) -> None:
    function = getattr(torch, name)
    agrees(lambda x: function((x, x.sin()), 1), images(LAYOUTS[0]))


def test_concatenation_of_an_empty_tensor() -> None:
    x = images(LAYOUTS[0])
    with Lean():
        out = torch.cat([torch.empty(0, dtype=x.dtype), x, x])
    assert torch.equal(out, torch.cat([x, x]))


def test_mixed_types_are_promoted_as_ever() -> None:
    x = images(LAYOUTS[0])
    with Lean():
        out = torch.cat([x, x.detach().float()], dim=1)
    assert out.dtype == torch.float64


@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"stride": 3, "ceil_mode": True}])
def test_large_pools_are_lean_where_nothing_is_differentiated_twice(settings: Any) -> None:
    for size, lean in ((128, True), (64, False)):
        x = torch.randn(2, 16, size, size).relu().requires_grad_(True)
        expected = F.max_pool2d(x, 3, **settings)
        with Once():
            found = F.max_pool2d(x, 3, **settings)
        assert (type(found.grad_fn).__name__ == "_MaxPoolBackward") is lean
        assert torch.equal(found, expected)
        assert found.is_contiguous()
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected)]
        torch.testing.assert_close(*grads)
