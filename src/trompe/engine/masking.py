"""The outputs of a network for many masked copies of its input, in chunks, with bounded memory.

Explanations without gradients (occlusion, RISE, LIME, KernelSHAP) keep a part of the image, look at
the output, and combine the outputs of many such copies linearly. With the masks fixed, their map is
linear in the outputs, so its derivative is one backward pass through the network, of first order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine.mean import chunked_sum, division
from trompe.engine.once import once
from trompe.engine.remarks import say_held
from trompe.errors import UsageError

Score = Callable[[Tensor, Tensor], Tensor]
"""``score(logits [N, K], target [N]) -> [N]``: what of the output is explained."""


def masked_scores(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    masks: Tensor,
    *,
    score: Score,
    baseline: float | Tensor,
    chunk: int,
    keep: bool,
) -> Tensor:
    """The score of each image under each mask, ``score(model(x0 + m (x - x0)))``.

    Args:
        model: any module [B, ...] -> [B, K].
        x: images [B, ...]; requires grad.
        target: class of each image, [B].
        masks: the share of each entry that is kept, 0..1, [M, ...], broadcast to [M, B, ...].
        score: what of the output is explained.
        baseline: x0, what takes the place of an entry that is not kept, in the units of x; a number
            or a tensor that broadcasts to x.
        chunk: how many images may be held in memory with their graph.
        keep: whether a graph is wanted.

    Returns:
        [M, B]; differentiable once towards x, or any number of times, and towards the weights,
        where the model has weights that require grad, when the graphs of all copies are held, or
        all copies fit into one chunk.
    """
    batch, count = x.shape[0], masks.shape[0]
    copies, recompute = division(x, count, chunk, model, keep)
    chunks = masks.split(copies)

    def part(x: Tensor, i: int) -> Tensor:
        points = (baseline + chunks[i] * (x - baseline)).flatten(0, 1)
        scores = score(model(points), target.repeat(len(chunks[i]))).to(x.dtype)
        scores = scores.unflatten(0, (-1, batch))
        # The chunks' scores stand in rows of their own, so that their sum puts them together.
        before = i * copies
        return F.pad(scores, (0, 0, before, count - before - len(chunks[i])))

    if keep and not recompute and len(chunks) > 1:
        once(model, "held", (x,), {}, lambda: say_held(count))
    # The graphs of all chunks would be held until their sum is taken.
    with torch.set_grad_enabled(keep):
        return chunked_sum(x, part, len(chunks), recompute=recompute)


def product(one: Tensor, other: Tensor) -> Tensor:
    """``one @ other`` in their own precision, also where the caller computes in mixed one."""
    if not torch._C._is_any_autocast_enabled():
        return one @ other
    with torch.autocast(one.device.type, enabled=False):
        return one @ other


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _grid(sides: tuple[int, ...], cells: int, device: torch.device) -> Tensor:
    """Labels of the cells of a grid of equal boxes, of the sides' shape."""
    labels = torch.zeros((), dtype=torch.int64)
    for side in sides:
        count = min(cells, side)
        labels = labels.unsqueeze(-1) * count + torch.arange(side) * count // side
    return labels.to(device)


def sides_of(x: Tensor) -> tuple[int, ...]:
    """Height and width of images, length of signals, sides of volumes; entries of vectors."""
    return tuple(x.shape[2:]) or tuple(x.shape[1:])


def labels_of(segments: int | Tensor, x: Tensor) -> tuple[Tensor, int]:
    """Which segment each pixel belongs to, the same for all channels.

    Args:
        segments: cells of a grid along each side, at most one per pixel (of vectors every entry is
            a segment); or labels 0..F-1, int64, of the shape of one image without channels [H, W].
        x: images [B, C, H, W], signals [B, C, T], volumes [B, C, D, H, W] or vectors [B, D].

    Returns:
        Labels [H, W] (or [T], [D, H, W], [D]) on the device of x, and F.

    Raises:
        UsageError: if the labels are no labels, of another size, or leave out one of 0..F-1.
    """
    sides = sides_of(x)
    if isinstance(segments, int):
        cells = segments if x.dim() > 2 else sides[0]
        return _grid(sides, cells, x.device), math.prod(min(cells, side) for side in sides)
    if segments.shape != sides or segments.is_floating_point():
        raise UsageError(
            f"the segments have the shape {tuple(segments.shape)} and type {segments.dtype}: give "
            f"labels, int64, [{', '.join(map(str, sides))}]"
        )
    found = segments.unique()
    if found.tolist() != list(range(len(found))):
        raise UsageError(f"the segments must be labelled 0..{len(found) - 1}, each occurring")
    return segments.detach().to(x.device), len(found)


def as_masks(shares: Tensor, x: Tensor) -> Tensor:
    """What is kept at each place [M, H, W] for all images and channels of x, [M, 1, 1, H, W]."""
    return shares.view(len(shares), *[1] * min(2, x.dim() - 1), *shares.shape[1:])


def segment_masks(coalitions: Tensor, labels: Tensor, x: Tensor) -> Tensor:
    """Coalitions of segments [M, F] as masks of x, [M, 1, 1, H, W], or [M, 1, D] of vectors."""
    return as_masks(spread(coalitions, labels), x)


def spread(values: Tensor, labels: Tensor) -> Tensor:
    """One value per segment [N, F] at every pixel of the segment, [N, H, W], or [N, D]."""
    return values.index_select(1, labels.flatten()).unflatten(1, labels.shape)


def as_relevance(picture: Tensor, x: Tensor) -> Tensor:
    """A picture [B, H, W] as a map of the shape of x [B, C, H, W], whatever its number of sides.

    One of vectors [B, D] stays as it is.

    Every channel holds the same picture divided by their number, so that their sum is the picture.
    """
    if x.dim() == 2:
        return picture
    return picture.unsqueeze(1).expand_as(x) / x.shape[1]
