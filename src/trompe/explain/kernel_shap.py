"""KernelSHAP (Lundberg and Lee 2017): Shapley values of segments by a weighted regression."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.coalitions import shapley_coalitions, shapley_weights
from trompe.engine.masking import (
    as_relevance,
    labels_of,
    masked_scores,
    product,
    segment_masks,
    spread,
)
from trompe.errors import UsageError
from trompe.explain.base import Method, check_score, explainers, scored
from trompe.types import Explanation


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def _regression(
    samples: int,
    features: int,
    paired: bool,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Coalitions [2 + M, F], the first two none and all, and the matrix [F, 2 + M]."""
    generator = torch.Generator().manual_seed(seed)
    drawn, weights = shapley_coalitions(samples, features, generator, paired)
    matrix = shapley_weights(drawn, weights)
    return _with_ends(drawn).to(device, dtype), matrix.to(device, dtype)


def _with_ends(coalitions: Tensor) -> Tensor:
    """The coalitions after the one that keeps nothing and the one that keeps all."""
    ends = coalitions.new_zeros(2, coalitions.shape[1])
    ends[1] = 1.0
    return torch.cat([ends, coalitions])


@explainers.register("kernel_shap")
@dataclass(frozen=True)
class KernelShap(Method):
    """The Shapley value of each segment in the game ``score(x with a coalition kept)``.

    The values add up to ``score(x) - score(baseline)``. Where all coalitions are no more than
    ``samples`` they are exact, else estimated from coalitions drawn from the seed alone, the same
    for every image and every call; ``redrawn`` gives others. With the coalitions fixed the map is
    linear in the outputs and is differentiated without second derivatives. Every pixel has the
    value of its segment.

    Args:
        segments: cells along each side of the image; or labels 0..F-1, int64, [H, W] (of vectors
            [D], whose entries are segments of their own by default).
        samples: largest number of coalitions, beside those that keep nothing and all; an estimate
            takes at least as many as there are segments, better several times as many.
        sampler: ``paired`` follows each coalition with its complement, which makes the estimate
            less noisy; ``independent`` does not.
        coalitions: which segments are kept, 0 or 1, [M, F], neither none nor all, in place of drawn
            ones; they weigh equally, as drawn ones do.
        baseline: what is left out becomes this, in normalised units: one number, or a tensor that
            broadcasts to [B, C, H, W].
        score: ``logit`` or ``softmax``.
        seed: of the draws.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if a number is out of range, the score or sampler unknown, or, when called,
            labels or coalitions do not fit the image, or there is one segment only.
    """

    name = "kernel_shap"
    masked = True
    first_order = True
    segments: int | Tensor = 7
    samples: int = 256
    sampler: Literal["paired", "independent"] = "paired"
    coalitions: Tensor | None = None
    baseline: float | Tensor = 0.0
    score: Literal["softmax", "logit"] = "logit"
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        check_score(self.score)
        if self.sampler not in ("paired", "independent"):
            raise UsageError(f"unknown sampler '{self.sampler}': choose from paired, independent")
        if min(self.samples, self.chunk) < 1 or (
            isinstance(self.segments, int) and self.segments < 1
        ):
            raise UsageError(
                f"segments, samples and chunk must be at least 1, not {self.segments}, "
                f"{self.samples} and {self.chunk}"
            )

    @property
    def draws(self) -> bool:
        """See ``Method``."""
        return self.coalitions is None

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _fit(self, features: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coalitions [2 + M, F] and the matrix [F, 2 + M]."""
        if features < 2:
            raise UsageError("kernel_shap needs at least 2 segments, not 1: give more segments")
        if self.coalitions is None:
            paired = self.sampler == "paired"
            return _regression(self.samples, features, paired, self.seed, x.dtype, x.device)
        given = self.coalitions.detach().double().cpu()
        kept = given.sum(dim=-1)
        fits = given.dim() == 2 and given.shape[1] == features
        if not fits or not bool(((kept > 0) & (kept < features)).all()):
            raise UsageError(
                f"the coalitions (shape {tuple(given.shape)}) do not fit: give [M, {features}], "
                "one column per segment, without those that keep nothing or all"
            )
        matrix = shapley_weights(given, torch.ones(len(given), dtype=given.dtype))
        return _with_ends(given).to(x.device, x.dtype), matrix.to(x.device, x.dtype)

    def _method(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
        labels, features = labels_of(self.segments, x)
        coalitions, matrix = self._fit(features, x)
        scores = masked_scores(
            model,
            x,
            target,
            segment_masks(coalitions, labels, x),
            score=partial(scored, score=self.score),
            baseline=self.baseline,
            chunk=self.chunk,
            keep=keep,
        )
        picture = spread(product(matrix, scores).t(), labels)
        return Explanation(as_relevance(picture, x), model(x))
