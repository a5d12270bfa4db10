"""RISE (Petsiuk et al. 2018): random masks, weighted by the scores of what they leave."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.masking import as_masks, as_relevance, masked_scores, product, sides_of
from trompe.errors import UsageError
from trompe.explain.base import Method, check_score, explainers, scored
from trompe.types import Explanation


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def random_masks(
    samples: int,
    cells: int,
    probability: float,
    seed: int,
    sides: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Smooth random masks within 0..1, the same on every device.

    A grid of cells, each kept or not, is scaled up linearly to one cell more than the image and cut
    out at a random place. With no cells, entries are kept or not each by itself.

    Returns:
        [M, *sides].
    """
    generator = torch.Generator().manual_seed(seed)
    if not cells:
        drawn = torch.rand(samples, *sides, generator=generator, dtype=torch.float64)
        return (drawn < probability).to(device, dtype)
    counts = [min(cells, side) for side in sides]
    size = [math.ceil(side / count) for side, count in zip(sides, counts, strict=True)]
    drawn = torch.rand(samples, 1, *counts, generator=generator, dtype=torch.float64)
    large = F.interpolate(
        (drawn < probability).double(),
        size=[(count + 1) * one for count, one in zip(counts, size, strict=True)],
        mode=_MODES[len(sides)],
        align_corners=False,
    )
    starts = [torch.randint(one, (samples,), generator=generator).tolist() for one in size]
    cut = [
        one[0][tuple(slice(at, at + side) for at, side in zip(place, sides, strict=True))]
        for one, place in zip(large, zip(*starts, strict=True), strict=True)
    ]
    return torch.stack(cut).to(device, dtype)


_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@explainers.register("rise")
@dataclass(frozen=True)
class RISE(Method):
    """``sum_m score(x with mask m) m / (M p)``.

    The map is linear in the outputs: it is differentiated without second derivatives. The masks are
    drawn from the seed alone, the same for every image and every call; ``redrawn`` gives others.

    Args:
        samples: M, number of masks.
        cells: of the grid that is scaled up, along each side.
        probability: p, with which a cell is kept, within 0..1.
        baseline: what is masked becomes this, in normalised units: one number, or a tensor that
            broadcasts to [B, C, H, W].
        score: ``logit`` or ``softmax``.
        centred: whether the mean score is taken off, so that the map has a sign: above zero where
            keeping a pixel raises the score above its mean. By default, as published, it is not.
        masks: masks of your own, 0..1, [M, H, W] (or [M, D]), in place of drawn ones.
        seed: of the draws.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if a number is out of range, the score unknown, or, when called, the masks are
            of another size than the images.
    """

    name = "rise"
    masked = True
    first_order = True
    samples: int = 256
    cells: int = 7
    probability: float = 0.5
    baseline: float | Tensor = 0.0
    score: Literal["softmax", "logit"] = "logit"
    centred: bool = False
    masks: Tensor | None = None
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        check_score(self.score)
        if min(self.samples, self.cells, self.chunk) < 1:
            raise UsageError(
                f"samples, cells and chunk must be at least 1, not {self.samples}, {self.cells} "
                f"and {self.chunk}"
            )
        if not 0 < self.probability < 1:
            raise UsageError(f"probability must be within 0..1, not {self.probability}")

    @property
    def draws(self) -> bool:
        """See ``Method``."""
        return self.masks is None

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _masks(self, x: Tensor) -> Tensor:
        """[M, 1, 1, H, W], or [M, 1, D] of vectors, whose entries are kept each by itself."""
        sides = sides_of(x)
        if self.masks is None:
            cells = self.cells if x.dim() > 2 else 0
            drawn = random_masks(
                self.samples, cells, self.probability, self.seed, sides, x.dtype, x.device
            )
            return as_masks(drawn, x)
        if self.masks.shape[1:] != sides:
            raise UsageError(
                f"the masks have the shape {tuple(self.masks.shape)}, the images {tuple(x.shape)}: "
                f"give masks [M, {', '.join(map(str, sides))}]"
            )
        return as_masks(self.masks.detach().to(x.device, x.dtype), x)

    def _method(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
        masks = self._masks(x)
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
        if self.centred:
            scores = scores - scores.mean(dim=0)
        picture = product(scores.t(), masks.flatten(1)) / (len(masks) * self.probability)
        return Explanation(as_relevance(picture.unflatten(1, sides_of(x)), x), model(x))
