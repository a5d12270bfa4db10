"""Occlusion (Zeiler and Fergus 2014): what the score loses when a window is covered."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.masking import as_masks, as_relevance, masked_scores, product, sides_of
from trompe.errors import UsageError
from trompe.explain.base import Method, check_score, explainers, scored
from trompe.types import Explanation


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def _windows(
    sides: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One mask per window, 0 inside it and 1 outside, [M, *sides]."""
    along = []
    for side, size, step in zip(sides, window, stride, strict=True):
        starts = step * torch.arange(math.ceil((side - size) / step) + 1).unsqueeze(1)
        places = torch.arange(side).unsqueeze(0)
        along.append((places >= starts) & (places < starts + size))
    covered = along[0]
    for one in along[1:]:  # [M, *sides so far] and [N, side]: every window with every other
        one = one.view(1, len(one), *[1] * (covered.dim() - 1), -1)
        covered = (covered[:, None, ..., None] & one).flatten(0, 1)
    return (~covered).to(device, dtype)


@explainers.register("occlusion")
@dataclass(frozen=True)
class Occlusion(Method):
    """``score(x) - score(x with a window covered)``, at each pixel the mean over its windows.

    The windows slide over the image, all channels at once; one that reaches beyond the edge is cut
    off there. The map is linear in the outputs: it is differentiated without second derivatives.

    Args:
        window: sides of a window in pixels, one number for all or one each; by default an eighth of
            each side, rounded up. Of vectors, the number of entries.
        stride: how far apart windows are, at most the window; by default half of it, rounded up.
        baseline: what a covered entry becomes, in normalised units: one number (0 is the mean
            colour of the training set), or a tensor that broadcasts to [B, C, H, W].
        score: ``logit`` or ``softmax``.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if a size is not positive, the stride larger than the window, the score unknown,
            or, when called, the window larger than the image.
    """

    name = "occlusion"
    first_order = True
    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: float | Tensor = 0.0
    score: Literal["softmax", "logit"] = "logit"
    chunk: int = 64

    def __post_init__(self) -> None:
        check_score(self.score)
        for what, value in (("window", self.window), ("stride", self.stride)):
            if (
                value is not None
                and min((value,) if isinstance(value, int) else value, default=0) < 1
            ):
                raise UsageError(f"{what} must be at least 1 pixel, not {value}")
        if self.chunk < 1:
            raise UsageError(f"chunk must be at least 1, not {self.chunk}")

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _sizes(self, sides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and stride for an image of these sides."""
        window = tuple(math.ceil(side / 8) for side in sides)
        if self.window is not None:
            window = _each(self.window, len(sides))
        stride = tuple(math.ceil(size / 2) for size in window)
        if self.stride is not None:
            stride = _each(self.stride, len(sides))
        for side, size, step in zip(sides, window, stride, strict=True):
            if size > side:
                raise UsageError(
                    f"a window of {size} pixels does not fit a side of {side}: choose one of at "
                    f"most {side}"
                )
            if step > size and size < side:
                raise UsageError(
                    f"a stride of {step} leaves pixels between windows of {size} uncovered: choose "
                    f"one of at most {size}"
                )
        return window, stride

    def _method(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
        sides = sides_of(x)
        window, stride = self._sizes(sides)
        masks = as_masks(_windows(sides, window, stride, x.dtype, x.device), x)
        scores = masked_scores(
            model,
            x,
            target,
            masks,
            score=partial(scored, score=self.score),
            baseline=self.baseline,
            chunk=self.chunk,
            keep=keep,
        )
        logits = model(x)
        lost = scored(logits, target, self.score).to(x.dtype) - scores
        covered = 1 - masks.flatten(1)
        picture = product(lost.t(), covered) / covered.sum(dim=0)
        return Explanation(as_relevance(picture.unflatten(1, sides), x), logits)


def _each(value: int | tuple[int, ...], sides: int) -> tuple[int, ...]:
    """One number per side; of several, vectors and signals take the first one."""
    if isinstance(value, int):
        return (value,) * sides
    if len(value) < sides or len(value) > sides > 1:
        raise UsageError(f"{value} are {len(value)} numbers for {sides} sides: give one each")
    return value[:sides]
