"""Smooth max pooling against ``torch.logsumexp`` over windows laid out by plain loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.pooling import smooth_max_pool2d

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 2, "dilation": 2},
    {"kernel_size": (2, 3), "stride": (1, 3), "padding": (0, 1), "dilation": (3, 2)},
    {"kernel_size": 3, "stride": 3, "ceil_mode": True, "dilation": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": [2], "stride": []},
]
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def slow(x: Tensor, beta: float, geometry: dict[str, Any]) -> Tensor:
    """One window at a time; the output's size is that of PyTorch's max pooling."""
    kernel = pair(geometry["kernel_size"])
    stride = pair(geometry.get("stride") or kernel)
    padding, dilation = pair(geometry.get("padding", 0)), pair(geometry.get("dilation", 1))
    like = F.max_pool2d(x, **geometry)
    out = torch.empty_like(like)
    for row, column in product(range(like.shape[-2]), range(like.shape[-1])):
        places = [
            x[..., r, c]
            for i, j in product(range(kernel[0]), range(kernel[1]))
            if 0 <= (r := row * stride[0] - padding[0] + i * dilation[0]) < x.shape[-2]
            and 0 <= (c := column * stride[1] - padding[1] + j * dilation[1]) < x.shape[-1]
        ]
        out[..., row, column] = torch.logsumexp(beta * torch.stack(places), dim=0) / beta
    return out


@each_geometry
def test_value_and_derivative(geometry: dict[str, Any]) -> None:
    x = nets.images(2)[:, :2, :, :7].clone().requires_grad_(True)
    found, expected = smooth_max_pool2d(x, 3.0, **geometry), slow(x, 3.0, geometry)
    nets.close(found, expected, 1e-10)
    weight = torch.randn(found.shape, dtype=torch.float64)
    slopes = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    nets.close(slopes[0], slopes[1], 1e-10)


@each_geometry
def test_derivatives_of_both_orders(geometry: dict[str, Any]) -> None:
    x = nets.images(1)[:, :1, :6, :5].clone().requires_grad_(True)
    if F.max_pool2d(x, **geometry).numel() == 0:
        pytest.skip("nothing left")
    for beta in (2.0, torch.tensor(2.0, dtype=torch.float64)):
        assert torch.autograd.gradcheck(lambda x, b=beta: smooth_max_pool2d(x, b, **geometry), x)
        assert torch.autograd.gradgradcheck(
            lambda x, b=beta: smooth_max_pool2d(x, b, **geometry), x
        )


@each_geometry
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tends_to_max_pooling(geometry: dict[str, Any], dtype: torch.dtype) -> None:
    x = 10 * nets.images(dtype=dtype).requires_grad_(True)
    x.retain_grad()
    hard, smooth = F.max_pool2d(x, **geometry), smooth_max_pool2d(x, 1e4, **geometry)
    nets.close(smooth, hard, 1e-4)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (smooth, hard)]
    nets.close(slopes[0], slopes[1], 1e-3)
    window = 1
    for n in pair(geometry["kernel_size"]):
        window *= n
    gap = smooth_max_pool2d(x, 2.0, **geometry) - hard
    assert float(gap.detach().min()) >= -1e-5
    assert float(gap.detach().max()) <= torch.log(torch.tensor(float(window))) / 2 + 1e-5


def test_without_a_batch() -> None:
    x = nets.images(2)
    nets.close(smooth_max_pool2d(x[0], 2.0, 2), smooth_max_pool2d(x, 2.0, 2)[0], 1e-14)


def test_far_out_nothing_overflows_or_becomes_denormal() -> None:
    x = torch.tensor([[1e4, -1e4, 3.0, 2.9]]).view(1, 1, 2, 2).requires_grad_(True)
    for beta in (1.0, 100.0):
        value = smooth_max_pool2d(x, beta, 2)
        assert float(value) == 1e4
        (grad,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(grad.square().sum(), x)
        for values in (grad.detach(), curve):
            small = values.abs()
            assert bool(torch.isfinite(values).all())
            assert not bool(((small > 0) & (small < torch.finfo(torch.float32).tiny)).any())


def test_the_input_is_left_as_it_is() -> None:
    x = nets.images()
    before = x.clone()
    smooth_max_pool2d(x, 2.0, 1)
    smooth_max_pool2d(x, 2.0, 2)
    assert torch.equal(x, before)
