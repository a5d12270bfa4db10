"""Lean convolutions against PyTorch's own, in value and in derivatives of both orders."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import lean
from trompe.engine.lean import Lean

CASES: list[tuple[int, dict[str, Any]]] = [
    (2, {}),
    (2, {"stride": 2, "padding": 1}),
    (2, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}),
    (2, {"groups": 2, "padding": 1}),
    (2, {"groups": 4, "stride": 3}),
    (2, {"stride": [2]}),
    (2, {"padding": "same"}),
    (1, {"stride": 2, "dilation": 2}),
    (3, {"padding": 1, "stride": 2}),
]
CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
each_case = pytest.mark.parametrize(("dims", "settings"), CASES, ids=str)


def tensors(dims: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dims)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size = (6, 5, 4)[:dims]
    return draw(2, 4, *size).requires_grad_(True), draw(4, 4 // groups, *[2] * dims), draw(4)


@each_case
@pytest.mark.parametrize("biased", [True, False])
def test_as_pytorch(dims: int, settings: dict[str, Any], biased: bool) -> None:
    x, weight, bias = tensors(dims, settings.get("groups", 1))
    arguments = (x, weight, bias if biased else None)
    convolution = CONVOLUTIONS[dims]
    expected = convolution(*arguments, **settings)
    with Lean():
        found = convolution(*arguments, **settings)
    nets.close(found, expected, 1e-14)
    results = []
    for out in (found, expected):
        (grad,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(grad.pow(2).sum(), x)
        results.append((grad.detach(), curve))
    nets.close(results[0][0], results[1][0], 1e-12)
    nets.close(results[0][1], results[1][1], 1e-12)


@each_case
def test_derivatives_of_both_orders(dims: int, settings: dict[str, Any]) -> None:
    x, weight, _ = tensors(dims, settings.get("groups", 1))
    geometry = lean.geometry_of(dims, **settings)
    if geometry is None:
        assert isinstance(settings["padding"], str)
        return
    x = x[:1, :, :4].detach().clone().requires_grad_(True)

    def convolution(x: Tensor) -> Tensor:
        return lean.convolution(x, weight, geometry)

    out = convolution(x)
    assert "_Convolution" in type(out.grad_fn).__name__
    assert torch.autograd.gradcheck(convolution, x)
    assert torch.autograd.gradgradcheck(convolution, x)
    grad = torch.randn_like(out).requires_grad_(True)
    back = lean.transposed(grad, weight, geometry, x.shape)
    torch.testing.assert_close((back * x).sum(), (out * grad).sum())  # the transpose of the map
    assert torch.autograd.gradcheck(
        lambda g: lean.transposed(g, weight, geometry, x.shape), grad, fast_mode=True
    )


@pytest.mark.parametrize("requires", ["weight", "bias"])
def test_gradients_of_weights_are_not_lost(requires: str) -> None:
    x, weight, bias = tensors(2)
    parameter = {"weight": weight, "bias": bias}[requires].requires_grad_(True)
    grads = []
    for mode in (Lean(), torch.enable_grad()):
        with mode:
            out = F.conv2d(x, weight, bias)
        grads.append(torch.autograd.grad(out.square().sum(), parameter)[0])
    nets.close(grads[0], grads[1], 1e-14)


def test_a_single_image_without_a_batch() -> None:
    x, weight, bias = tensors(2)
    with Lean():
        nets.close(F.conv2d(x[0], weight, bias), F.conv2d(x, weight, bias)[0], 1e-12)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_layouts(batch: int, kernel: int, last: bool) -> None:
    x = torch.randn(batch, 4, 6, 6, dtype=torch.float64)
    weight = torch.randn(4, 4, kernel, kernel, dtype=torch.float64)
    if last:
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    x.requires_grad_(True)
    grads = []
    for mode in (Lean(), torch.enable_grad()):
        with mode:
            out = F.conv2d(x, weight)
        grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    nets.close(grads[0], grads[1], 1e-12)
    if not last:  # a 1x1 weight is of both layouts, and must not change that of the images
        assert grads[0].stride() == x.stride()


def test_a_convolution_per_pixel_within_two_explanations() -> None:
    """One inside the other, as a mean of gradients, both with their modes active."""
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Softplus(), nn.Conv2d(5, 4, 1), nn.Flatten(2))
    net = nn.Sequential(net, nn.AdaptiveAvgPool1d(1), nn.Flatten()).double().requires_grad_(False)
    x, target = torch.randn(2, 3, 4, 4).double(), torch.tensor([1, 3])
    method = trompe.explainer("uniform_gradient", samples=2)
    expected = method(net, x.clone().requires_grad_(True), target)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_(True)
    torch.testing.assert_close(method(net, last, target), expected)
