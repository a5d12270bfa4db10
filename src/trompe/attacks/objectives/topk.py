"""The most relevant pixels lose their relevance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.metrics import topk_intersection


def top_mask(heat: Tensor, k: int | None) -> Tensor:
    """1 at the k largest entries of each heat map, 0 elsewhere, [B, H, W].

    Args:
        heat: [B, H, W].
        k: how many; a tenth of the entries, at least one, if ``None``.
    """
    flat = heat.flatten(1)
    count = min(flat.shape[1], top_count(heat, k))
    chosen = torch.zeros_like(flat).scatter(1, flat.topk(count, dim=1).indices, 1.0)
    return chosen.view_as(heat)


def top_count(heat: Tensor, k: int | None) -> int:
    """How many entries are the largest ones; see ``top_mask``."""
    return max(1, heat[0].numel() // 10) if k is None else k


def check_k(k: int | None) -> None:
    """Refuse a number of pixels that is none.

    Raises:
        UsageError: if it is not positive.
    """
    if k is not None and k < 1:
        raise UsageError(f"k must be at least 1 pixel, not {k}")


@objectives.register("topk")
@dataclass(frozen=True)
class Topk(Objective):
    """The share of the map that its k most relevant pixels keep (Ghorbani et al. 2019).

    ``sum_{i in T} h_i / sum_{i in T} h0_i``, T the k largest entries of the original map h0. Judged
    by how many of the k are among the k largest still; of equal numbers the smaller share counts.

    Args:
        k: number of pixels; by default a tenth of them.

    Raises:
        UsageError: if k is not positive.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        check_k(self.k)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The share left, [B], 1 at the original image."""
        mask = top_mask(reference.map, self.k)
        before = (mask * reference.map).flatten(1).sum(dim=1)
        return (mask * now.map).flatten(1).sum(dim=1) / before

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """The share of the k pixels still among the k largest, [B], 0..1, and a tie-break."""
        count = min(now.map[0].numel(), top_count(now.map, self.k))
        # The map sums to 1, so that what is added is less than half a pixel.
        left = (top_mask(reference.map, self.k) * now.map).flatten(1).sum(dim=1)
        return topk_intersection(now.map, reference.map, k=count) + left / (2 * count)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The share of the k pixels still among the k largest, and the share of the map left."""
        count = min(now.map[0].numel(), top_count(now.map, self.k))
        return {
            "topk_kept": topk_intersection(now.map.detach(), reference.map, k=count),
            "topk_mass": self(now, reference),
        }
