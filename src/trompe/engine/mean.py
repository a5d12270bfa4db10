"""The mean of a map over many inputs, in chunks, with memory that does not grow with their number.

A map's own graph is as large as several forward passes. Where the mean runs over 30 inputs (the
steps of integrated gradients, the samples of SmoothGrad) and a graph is wanted, the chunks are
computed without one, and each is computed again when the gradient of the mean is asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trompe.per_image import per_image

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""``maps(model, x, target)``: what an explainer is called as."""

Part = Callable[[Tensor, int], Tensor]
"""``part(x, i)``: the i-th chunk's contribution to the sum, for x of the shape of the input."""

# The pixels that go through a network at once on a CPU: with more, what a layer writes has left the
# cache when the next one reads it (measured: 8 images of 224 pixels, 16 to 64 of 64 pixels are
# fastest; 64 images of 224 pixels take 1.5 times as long).
_PIXELS = 400_000


class _Sum(torch.autograd.Function):
    """The sum of parts, each part recomputed in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part, count: int) -> Tensor:
        ctx.part, ctx.count = part, count
        ctx.save_for_backward(x)
        with torch.enable_grad():
            start = x.detach().requires_grad_(True)
            total = part(start, 0).detach()
            for i in range(1, count):
                total = total + part(start, i).detach()
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        for i in range(ctx.count):
            with torch.enable_grad():
                start = x.detach().requires_grad_(True)
                value = ctx.part(start, i)
            if value.requires_grad:
                total += torch.autograd.grad(value, start, grad, materialize_grads=True)[0]
        return total, None, None


def chunked_sum(x: Tensor, part: Part, count: int, *, recompute: bool) -> Tensor:
    """``sum(part(x, i) for i in range(count))``.

    Args:
        x: requires grad.
        part: gives a tensor of one shape for all i.
        count: number of parts.
        recompute: whether the graph of each part is dropped and made again when needed. The sum
            can then be differentiated once, and towards x alone.
    """
    if recompute and count > 1:
        return _Sum.apply(x, part, count)
    total = part(x, 0)
    for i in range(1, count):
        total = total + part(x, i)
    return total


def division(x: Tensor, count: int, chunk: int, model: nn.Module, keep: bool) -> tuple[int, bool]:
    """How many copies of a batch go through the model at once, and whether graphs are dropped.

    Args:
        x: [B, ...].
        count: number of copies in all.
        chunk: how many images may be held in memory with their graph.
        model: the graphs can be made again if no gradients of its weights are wanted.
        keep: whether a graph is wanted.

    Returns:
        Copies per part, at least 1, and ``recompute`` of ``chunked_sum``.
    """
    held = max(1, min(count, chunk // x.shape[0]))
    trainable = any(parameter.requires_grad for parameter in model.parameters())
    recompute = keep and not trainable and held < count
    if x.device.type == "cpu" and x.dim() in (4, 5):
        fitting = _PIXELS // (x.shape[0] * math.prod(x.shape[2:]))
        held = max(1, min(held, fitting))
    return held, recompute


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def drawn(
    kind: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Random numbers of a seed, the same on every device, and kept for the next step.

    They are drawn in double precision on the processor; doing so in every step of an attack would
    take longer than the step does on a GPU.

    Args:
        kind: ``normal``, or ``uniform`` within -1..1.
        seed: of the draw.
        shape: of the result.
        dtype: of the result.
        device: of the result.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "normal":
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        numbers = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    return numbers.to(device, dtype)


def noisy_mean(
    maps: Maps,
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    draws: Tensor,
    size: float,
    chunk: int,
    keep: bool,
    relative: bool = True,
) -> Tensor:
    """The mean of an explainer's maps over noise added to the images.

    Args:
        maps: the explainer averaged.
        model: the model explained.
        x: [B, ...]; requires grad.
        target: class of each image, [B].
        draws: the noise, the same for every image, [samples, 1, ...].
        size: of the noise; multiplies the draws.
        chunk: how many images may be held in memory with their graph.
        keep: whether the mean must carry a graph.
        relative: whether the size is a share of each image's range (maximum minus minimum), or
            in the units of x.

    Returns:
        Of the shape of x.
    """
    batch, samples = x.shape[0], draws.shape[0]
    copies, recompute = division(x, samples, chunk, model, keep)
    chunks = draws.to(x.device, x.dtype).split(copies)

    def part(x: Tensor, i: int) -> Tensor:
        noise = size * chunks[i]
        if relative:
            flat = x.flatten(1)
            spread = per_image(flat.amax(dim=1) - flat.amin(dim=1), x)
            noise = spread * noise
        points = (x + noise).flatten(0, 1)
        found = maps(model, points, target.repeat(len(chunks[i])))
        return found.unflatten(0, (-1, batch)).sum(dim=0)

    return chunked_sum(x, part, len(chunks), recompute=recompute) / samples
