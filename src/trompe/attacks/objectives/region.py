"""Relevance gathers in a region."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.attacks.regions import Box, box_mask, check_box, frame_mask
from trompe.errors import UsageError


@objectives.register("region")
@dataclass(frozen=True)
class Region(Objective):
    """The share of the map outside a region, ``1 - sum_{i in M} h_i``.

    Ghorbani et al. (2019) call it the targeted attack, Heo et al. (2019) location fooling.

    Args:
        box: the region M: top, left, bottom and right as shares of the height and the width; by
            default a frame along the edge, a seventh of the shorter side wide (Heo et al.).
        mask: a region of any form in place of the box, 0..1, [B, H, W].

    Raises:
        UsageError: if the box is none, both are given, or, when used, the mask is of another size
            than the maps.
    """

    images_only = True

    box: Box | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.box is not None:
            check_box(self.box)
            if self.mask is not None:
                raise UsageError("a region is given by a box or a mask, not by both")

    def chosen(self, reference: Observation) -> Tensor:
        """The region, 0..1, [H, W] or [B, H, W]."""
        heat = reference.map
        if self.mask is not None:
            if self.mask.shape != heat.shape:
                raise UsageError(
                    f"the mask has the shape {tuple(self.mask.shape)}, the maps "
                    f"{tuple(heat.shape)}: give one mask per image, [B, H, W]"
                )
            return self.mask.to(heat)
        if self.box is None:
            return frame_mask(heat.shape[1], heat.shape[2], heat)
        return box_mask(self.box, heat.shape[1], heat.shape[2], heat)

    def inside(self, now: Observation, reference: Observation) -> Tensor:
        """The share of the map in the region, [B], 0..1."""
        return (self.chosen(reference) * now.map).flatten(1).sum(dim=1)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The share outside, [B]."""
        return 1 - self.inside(now, reference)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The share of the map in the region."""
        return {"mass_inside": self.inside(now, reference)}
