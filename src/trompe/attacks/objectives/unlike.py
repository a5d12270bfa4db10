"""The map becomes as unlike the original one as it can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.metrics import cosine, pcc

_START = 0.02  # normalised units: about one 8-bit level


@objectives.register("unlike")
@dataclass(frozen=True)
class Unlike(Objective):
    """The correlation of the map with the original one.

    At the original image it is largest, so that its gradient is zero there: the attack starts
    beside it, from fixed noise of about one 8-bit level.

    Args:
        measure: ``pcc``, Pearson's correlation, or ``cosine``.

    Raises:
        UsageError: if the measure is unknown.
    """

    measure: Literal["pcc", "cosine"] = "pcc"

    def __post_init__(self) -> None:
        if self.measure not in ("pcc", "cosine"):
            raise UsageError(f"unknown measure '{self.measure}': choose from pcc, cosine")

    def start(self, reference: Observation) -> Tensor:
        """The original images and the same small noise on each, [B, C, H, W]."""
        x = reference.x
        noise = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        return x + _START * (2 * noise - 1).to(x.device)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The correlation, [B], within -1..1."""
        return (pcc if self.measure == "pcc" else cosine)(now.map, reference.map)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The correlation with the original map."""
        return {"original_pcc": pcc(now.map, reference.map)}
