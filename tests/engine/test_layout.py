"""Channels last from end to end: the same numbers, and no operation that changes the layout."""

from __future__ import annotations

import copy
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import record, smooth
from trompe.engine.inplace import overlaid
from trompe.engine.layout import channels_last, like
from trompe.engine.lean import Lean
from trompe.engine.mean import division
from trompe.engine.pooling import smooth_max_pool2d


class Fire(nn.Module):
    """1x1 convolutions, branches, batch norm, both pools: what networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.narrow = nn.Conv2d(4, 6, 1, stride=1)
        self.wide = nn.Conv2d(4, 6, 3, padding=1)
        self.down = nn.Conv2d(12, 6, 1, stride=2)
        self.end = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 5]."""
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 3, 2, ceil_mode=True)
        x = F.relu(self.squeeze(x))
        x = torch.cat([F.relu(self.narrow(x)), F.relu(self.wide(x))], 1)
        x = F.relu(self.down(F.max_pool2d(x, 2)))
        return self.end(x.mean((2, 3)))


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model = Fire().to(dtype).eval().requires_grad_(False)
    model.norm.running_mean.uniform_(-1, 1)
    model.norm.running_var.uniform_(0.5, 2)
    return model


def image(batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, 3, 31, 30, generator=torch.Generator().manual_seed(1), dtype=dtype)


def second(model: nn.Module, x: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """A map, and the gradient of a function of it."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_(True)
    relevance = trompe.explainer(method)(model, x, torch.zeros(len(x), dtype=torch.long))
    return relevance.detach(), torch.autograd.grad(relevance.pow(3).sum(), x)[0]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", ["gradient", "guided_backprop", "lrp", "deeplift"])
@pytest.mark.parametrize("pooling", [False, True])
def test_maps_and_their_derivatives_are_the_same(batch: int, method: str, pooling: bool) -> None:
    model, x = network(), image(batch)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    views: list[Any] = [(model, x), (last, x), (model, x.to(memory_format=torch.channels_last))]
    views.append((last, views[-1][1]))
    results = [second(smooth(m, beta=5.0, pooling=pooling), t, method) for m, t in views]
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            nets.close(one, other, 1e-10)


@pytest.mark.parametrize("method", ["gradient", "lrp"])
def test_no_operation_changes_the_layout(method: str) -> None:
    """Of the images of more than one pixel, from the first convolution to the last pool."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    changed: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            out = func(*args, **(kwargs or {}))
            images_in = [t for t in tree_leaves(args) if isinstance(t, Tensor) and t.dim() == 4]
            outs = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.dim() == 4]
            name = func.overloadpacket.__name__
            if name in ("mul", "add", "cat", "clone", "sigmoid_backward", "convolution"):
                changed.extend(
                    name
                    for t in outs
                    if any(channels_last(i) for i in images_in) and t.is_contiguous()
                    if not t.is_contiguous(memory_format=torch.channels_last)
                )
            return out

    model = network(torch.float32).to(memory_format=torch.channels_last)
    x = image(1, torch.float32).to(memory_format=torch.channels_last).requires_grad_(True)
    watched = smooth(model, beta=5.0)
    with Watch():
        relevance = trompe.explainer(method)(watched, x, torch.tensor([1]))
        (grad,) = torch.autograd.grad(relevance.square().sum(), x)
    assert channels_last(relevance)
    assert channels_last(grad)
    # The derivative of the last mean comes without a layout; PyTorch convolves a single image 1x1
    # with strides into the other layout, and it is brought back at once.
    assert changed in ([], ["mul"], ["convolution"])


@pytest.mark.parametrize("settings", [{}, {"weight": None}, {"bias": None}], ids=str)
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_batch_norm_as_pytorch(settings: dict[str, Any], dims: int) -> None:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = draw(2, 4, *[3] * dims).requires_grad_(True)
    arguments = {"weight": draw(4), "bias": draw(4), "eps": 1e-3, **settings}
    mean, variance = draw(4), draw(4).exp()
    expected = F.batch_norm(x, mean, variance, **arguments)
    with Lean():
        found = F.batch_norm(x, mean, variance, **arguments)
    assert found.grad_fn is not None
    assert "BatchNorm" not in type(found.grad_fn).__name__
    nets.close(found, expected, 1e-13)
    results = []
    for out in (found, expected):
        (grad,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(grad.pow(2).sum(), x)
        results.append((grad.detach(), curve))
    for one, other in zip(*results, strict=True):
        nets.close(one, other, 1e-11)


def test_smooth_pool_keeps_the_layout() -> None:
    x = image(2).to(memory_format=torch.channels_last).requires_grad_(True)
    out = smooth_max_pool2d(x, 3.0, 3, 2, 1)
    (grad,) = torch.autograd.grad(out.pow(2).sum(), x)
    first = x.detach().contiguous().requires_grad_(True)
    expected = smooth_max_pool2d(first, 3.0, 3, 2, 1)
    (other,) = torch.autograd.grad(expected.pow(2).sum(), first)
    assert channels_last(out)
    assert channels_last(grad)
    nets.close(out, expected, 1e-13)
    nets.close(grad, other, 1e-13)


def test_a_pixelwise_convolution_may_be_changed_in_place() -> None:
    """Its output is no view: else the change would be recorded as one of what it is a view of."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 2))
    model = nets.seeded(model).to(memory_format=torch.channels_last)
    x = image(2, torch.float32)[..., :3, :3].to(memory_format=torch.channels_last)
    with Lean():
        tape, logits = record(model, x.requires_grad_(True))
    assert not any(call.func is overlaid for call in tape.calls)
    nets.close(logits, model(x), 1e-6)


def test_like() -> None:
    first = image(2)
    last = first.to(memory_format=torch.channels_last)
    assert channels_last(like(first, last))
    assert like(last, first).is_contiguous()
    assert not channels_last(torch.zeros(2, 1, 3, 3))  # of both layouts
    assert not channels_last(torch.zeros(2, 3))


def test_copies_at_once_fit_the_cache_of_a_cpu() -> None:
    model = network()
    large, small = torch.empty(1, 3, 224, 224), torch.empty(2, 3, 32, 32)
    assert division(large, 30, 64, model, True) == (7, False)
    assert division(large, 100, 64, model, True) == (7, True)
    assert division(large, 100, 64, model, False) == (7, False)
    assert division(small, 100, 64, model, True) == (32, True)
    assert division(torch.empty(1, 3, 4096, 4096), 10, 64, model, False) == (1, False)
    assert division(large, 100, 64, model.requires_grad_(True), True) == (7, False)
