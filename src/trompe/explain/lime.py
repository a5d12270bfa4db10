"""LIME (Ribeiro et al. 2016) on images: a linear model of which segments are kept."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.coalitions import closeness, kept_at_random, ridge_weights
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
    width: float,
    ridge: float,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Coalitions [M, F] of a seed and the matrix [F, M] that makes coefficients of their scores."""
    coalitions = kept_at_random(samples, features, torch.Generator().manual_seed(seed))
    matrix = ridge_weights(coalitions, closeness(coalitions, width), ridge)
    return coalitions.to(device, dtype), matrix.to(device, dtype)


@explainers.register("lime")
@dataclass(frozen=True)
class Lime(Method):
    """The coefficients of ``min sum_m w_m (score(x with z_m kept) - a - z_m . b)^2 + l |b|^2``.

    w_m is near 1 where most segments are kept. Every pixel has the coefficient of its segment. With
    the coalitions z fixed the map is linear in the outputs: ``b = (Z'WZ + l I)^-1 Z'W scores``, Z
    centred, and is differentiated without second derivatives. The coalitions are drawn from the
    seed alone, the same for every image and every call; ``redrawn`` gives others.

    The segments are cells of a grid, or labels of your own: unlike those of the package ``lime``
    they do not move with the image.

    Args:
        segments: cells along each side of the image; or labels 0..F-1, int64, [H, W] (of vectors
            [D], whose entries are segments of their own by default).
        samples: M, number of coalitions.
        ridge: l, not negative.
        width: of the kernel that gives w, positive.
        coalitions: which segments are kept, 0 or 1, [M, F], in place of drawn ones.
        weights: w [M] of these coalitions, in place of the kernel's.
        baseline: what is left out becomes this, in normalised units: one number, or a tensor that
            broadcasts to [B, C, H, W].
        score: ``logit`` or ``softmax``.
        seed: of the draws.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if a number is out of range, the score unknown, or, when called, labels or
            coalitions do not fit the image.
    """

    name = "lime"
    masked = True
    first_order = True
    segments: int | Tensor = 7
    samples: int = 256
    ridge: float = 1.0
    width: float = 0.25
    coalitions: Tensor | None = None
    weights: Tensor | None = None
    baseline: float | Tensor = 0.0
    score: Literal["softmax", "logit"] = "logit"
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        check_score(self.score)
        if min(self.samples, self.chunk) < 1 or (
            isinstance(self.segments, int) and self.segments < 1
        ):
            raise UsageError(
                f"segments, samples and chunk must be at least 1, not {self.segments}, "
                f"{self.samples} and {self.chunk}"
            )
        if not 0 <= self.ridge < math.inf or not 0 < self.width < math.inf:
            raise UsageError(
                f"ridge must not be negative and width positive, not {self.ridge} and {self.width}"
            )
        if self.weights is not None and self.coalitions is None:
            raise UsageError("weights are those of given coalitions: give coalitions too")

    @property
    def draws(self) -> bool:
        """See ``Method``."""
        return self.coalitions is None

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _fit(self, features: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coalitions [M, F] and the matrix [F, M]."""
        if self.coalitions is None:
            return _regression(
                self.samples, features, self.width, self.ridge, self.seed, x.dtype, x.device
            )
        given = self.coalitions.detach().double().cpu()
        if given.dim() != 2 or given.shape[1] != features:
            raise UsageError(
                f"the coalitions have the shape {tuple(given.shape)}: give [M, {features}], one "
                "column per segment"
            )
        weights = closeness(given, self.width)
        if self.weights is not None:
            weights = self.weights.detach().double().cpu()
        matrix = ridge_weights(given, weights, self.ridge)
        return given.to(x.device, x.dtype), matrix.to(x.device, x.dtype)

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
