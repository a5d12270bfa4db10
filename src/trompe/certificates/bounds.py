"""The gradients that each method allows for one image, and the bounds that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.certificates.gates import Range
from trompe.certificates.gradient_set import Gradients
from trompe.certificates.upper import WIDEN

QUANTITIES = ("gradient_l2", "normal_l2", "heatmap_l1")
"""What a proved certificate bounds; see ``Certificate``."""


@dataclass
class Bounds:
    """What methods found for one image.

    Args:
        target: Index of the class explained.
        rounding: Allowance added to every entry of a gradient, if there is one.
        sets: By method, the sets of gradients that hold all gradients of the ball, or all their
            directions.
        curvature: At least the spectral norm of the Hessian of the score in the ball.
        bounds: By method and quantity.
    """

    target: int
    rounding: Tensor | None = None
    sets: dict[str, list[Gradients]] = field(default_factory=dict)
    curvature: float = math.inf
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, gradients: Gradients, turned: Gradients | None = None) -> None:
        """File the gradients that a method allows, and if known a set that has their directions."""
        sets = [gradients] if turned is None else [gradients, turned]
        if self.rounding is not None:
            sets = [one.widened(self.rounding) for one in sets]
            gradients = sets[0]
        self.sets[name] = sets
        self.bounds[name] = {
            "gradient_l2": gradients.l2,
            "normal_l2": min(one.normal for one in sets),
            "heatmap_l1": min(one.heatmap for one in sets),
        }

    def winner(self, quantity: str) -> str:
        """The method with the smallest bound of a quantity."""
        return min(self.bounds, key=lambda name: self.bounds[name][quantity])

    def best(self, quantity: str) -> float:
        """The smallest bound of a quantity."""
        return self.bounds[self.winner(quantity)][quantity]

    def kept(self, k: int) -> int:
        """How many of the k largest pixels surely stay among the k largest."""
        return max(one.kept(k) for sets in self.sets.values() for one in sets)


def gradients_within(
    centre: Tensor, entries: Tensor, change: float, box: Range | None = None
) -> Gradients:
    """All gradients whose distance from one is bounded in l2, entry by entry, and by a box.

    Args:
        centre: The gradient at x, [C, H, W] or [D].
        entries: At least how far each entry moves, likewise.
        change: At least how far the gradient moves in l2.
        box: Of its change.
    """
    # Rounding of the gradient at x itself, far below any bound of use.
    floor = 1e-12 * float(centre.abs().max())
    most = entries.clamp(max=change) + floor
    low, high = -most, most
    if box is not None:
        low, high = torch.maximum(low, box.low), torch.minimum(high, box.high)
    return Gradients(centre, Range(low, high), change * WIDEN + floor * math.sqrt(centre.numel()))
