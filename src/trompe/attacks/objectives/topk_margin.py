"""Drive the largest entries of a map out of its top k, each just as far as it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.metrics import topk_intersection

_TIE = 1e-3  # weight of the margins in the score: they decide between equal intersections


@objectives.register("topk_margin")
@dataclass(frozen=True)
class TopkMargin(Objective):
    """``sum_j max(0, a_j - b_{k+1-j} + m)``: the original top k against the k largest others.

    ``a_1 >= ... >= a_k`` are the entries of the map where the original map has its k largest,
    ``b_1 >= ... >= b_k`` the k largest of all other entries. The sum is 0 only if every a is below
    every b, which is an empty intersection. Unlike the mass of the top k (Ghorbani et al. 2019) a
    pair that has changed places by the margin exerts no more force; the pairs are those of R2ET
    (2024), which keeps them in order.

    Args:
        k: how many entries, at most half of the map; by default a tenth of them, at least one.
        margin: m, in units of the map's mean entry, not negative.

    Raises:
        UsageError: if one of them is out of range.
    """

    k: int | None = None
    margin: float = 0.5

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise UsageError(f"topk_margin: k must be at least 1, not {self.k}")
        if not 0 <= self.margin < float("inf"):
            raise UsageError(f"topk_margin: the margin must not be negative, not {self.margin}")

    def _count(self, pixels: int) -> int:
        count = max(1, pixels // 10) if self.k is None else self.k
        if 2 * count > pixels:
            raise UsageError(f"topk_margin: k must be within 1..{pixels // 2}, not {count}")
        return count

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The margins that are missing, [B], in shares of the map's sum."""
        flat, origin = now.map.flatten(1), reference.map.flatten(1)
        count = self._count(origin.shape[1])
        order = origin.argsort(dim=1, descending=True, stable=True)
        inside = flat.gather(1, order[:, :count]).sort(dim=1).values
        outside = flat.gather(1, order[:, count:]).topk(count, dim=1).values
        return (inside - outside + self.margin / origin.shape[1]).clamp_min(0).sum(dim=1)

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """The share of the top k that both maps have in common, [B]; ties by the margins."""
        count = self._count(reference.map[0].numel())
        common = topk_intersection(now.map, reference.map, k=count)
        return common + _TIE * self(now, reference)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The share of the top k in common with the original map."""
        count = self._count(reference.map[0].numel())
        finite = torch.isfinite(now.map).flatten(1).all(dim=1)
        common = topk_intersection(now.map, reference.map, k=count)
        return {"original_topk": common.where(finite, torch.nan)}
