"""Training with softplus, whose curvature is bounded by its beta."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.defences.base import Defence, defences


@defences.register("softplus")
@dataclass(frozen=True)
class SoftplusTraining(Defence):
    """Train, and use, the network with softplus in place of ReLU (Dombrowski et al. 2022).

    Trap: at beta of 1 and below it hides from attacks whose surrogate has beta 1 (masking).

    Args:
        beta: Of the softplus.
    """

    beta: float | None = 3.0

    source = "Dombrowski et al. 2022"
