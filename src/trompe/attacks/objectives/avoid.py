"""Relevance leaves a region."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.objectives.base import objectives
from trompe.attacks.objectives.region import Region
from trompe.attacks.observation import Observation
from trompe.attacks.regions import frame_mask


@objectives.register("avoid")
@dataclass(frozen=True)
class Avoid(Region):
    """The share of the map in a region, ``sum_{i in M} h_i``: what a map should not show.

    Args:
        box: the region M: top, left, bottom and right as shares of the height and the width; by
            default all but a frame along the edge, a seventh of the shorter side wide.
        mask: a region of any form in place of the box, 0..1, [B, H, W].

    Raises:
        UsageError: as ``Region``.
    """

    def chosen(self, reference: Observation) -> Tensor:
        """See ``Region``."""
        if self.box is None and self.mask is None:
            heat = reference.map
            return 1 - frame_mask(heat.shape[1], heat.shape[2], heat)
        return super().chosen(reference)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The share inside, [B]."""
        return self.inside(now, reference)
