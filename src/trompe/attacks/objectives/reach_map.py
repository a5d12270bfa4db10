"""The paper's objective: reach a target map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import TargetError
from trompe.metrics import pcc


@objectives.register("reach_map")
@dataclass(frozen=True)
class ReachMap(Objective):
    """``MSE(h(x_adv), h_t)`` (Dombrowski et al. 2019, equation 4, its first term).

    Args:
        target: the heat maps h_t aimed at, [B, H, W], each summing to 1; ``trompe.manipulate``
            fills in its ``target_map`` where there is none.
        relative: whether the error is divided by that of the original image, so that its weight
            means the same whatever the number of pixels.

    Raises:
        TargetError: if it is evaluated without a target.
    """

    target: Tensor | None = None
    relative: bool = False

    @property
    def aim(self) -> Tensor | None:
        """See ``Objective``."""
        return self.target

    def map_error(self, now: Observation) -> Tensor:
        """Mean squared error of the heat map, [B]."""
        if self.target is None:
            raise TargetError("reach_map has no map to reach: give target_map")
        return (now.map - self.target).square().flatten(1).mean(dim=1)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The error of each image, [B]."""
        error = self.map_error(now)
        return error / self.map_error(reference) if self.relative else error

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The map's mean squared error and its correlation with the target."""
        error = self.map_error(now)
        assert self.target is not None  # or its error could not be had
        return {"map_pcc": pcc(now.map, self.target), "map_mse": error}
