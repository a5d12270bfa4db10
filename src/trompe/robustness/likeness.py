"""How alike a map still is to the original one: the measures of a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.errors import ExplanationError
from trompe.metrics import (
    lens_topk,
    mass_centre_distance,
    pcc,
    spearman,
    ssim_or_nan,
    topk_intersection,
)
from trompe.types import heatmap

FLAT = 1e-5
"""The least spread of a map, as a share of its largest entry, that is more than rounding."""


def comparable(relevance: Tensor) -> Tensor:
    """The heat map of an original image, [B, H, W] (or [B, D]), if others can be compared with it.

    Args:
        relevance: of the original images, as ``trompe.types.heatmap`` takes it.

    Raises:
        ExplanationError: if a map is all zero, not finite, or, but for rounding, the same
            everywhere: what correlates with it is then not defined, or rounding alone.
    """
    heat = heatmap(relevance)
    entries = heat.flatten(1)
    most = entries.amax(dim=1)
    flat = most - entries.amin(dim=1) <= FLAT * most
    if bool(flat.any()):
        raise ExplanationError(
            f"the map of image {int(flat.nonzero()[0])} is the same everywhere, so that no other "
            "correlates with it: whether it withstands is not defined, try another method"
        )
    return heat


@dataclass(frozen=True)
class Measure:
    """One way of comparing two heat maps.

    Args:
        compare: two series of maps [B, H, W] to one number per pair, [B].
        title: what it is called in a figure or a sentence.
        distance: whether a larger number means less alike.
    """

    compare: Callable[[Tensor, Tensor], Tensor]
    title: str
    distance: bool = False

    def worse(self, now: Tensor, before: Tensor) -> Tensor:
        """Where ``now`` says less alike than ``before``, bool; never where it is no number."""
        return now > before if self.distance else now < before

    @property
    def alike(self) -> float:
        """The number of two equal maps."""
        return 0.0 if self.distance else 1.0

    @property
    def lost(self) -> float:
        """The number of a map that is gone: further from any threshold than every other."""
        return torch.inf if self.distance else -torch.inf


MEASURES: dict[str, Measure] = {
    "pcc": Measure(pcc, "Pearson correlation"),
    "spearman": Measure(spearman, "Spearman correlation"),
    "ssim": Measure(ssim_or_nan, "SSIM"),
    "topk": Measure(topk_intersection, "top-k intersection"),
    "lens_topk": Measure(lens_topk, "LENS top-k"),
    "centre": Measure(mass_centre_distance, "distance of the centres of mass, px", distance=True),
}
"""By name; k is a tenth of the pixels, LENS looks one pixel around."""


def chance(name: str, height: int, width: int) -> float | None:
    """What two maps without anything in common give, where it is known: k / (H W) of top-k."""
    if name != "topk":
        return 0.0 if name in ("pcc", "spearman") else None
    return max(1, height * width // 10) / (height * width)


def compare(maps: Tensor, originals: Tensor) -> dict[str, Tensor]:
    """Every measure of two series of heat maps [B, H, W], one number per pair, [B]."""
    return {name: measure.compare(maps, originals) for name, measure in MEASURES.items()}
