"""Make a map as unlike the original one as can be."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.metrics import pcc


@objectives.register("unlike")
@dataclass(frozen=True)
class Unlike(Objective):
    """``PCC(h(x_adv), h(x))``: the correlation with the original map, down to -1.

    The untargeted counterpart of ``reach_map``. At the original image itself the correlation is at
    its largest and its gradient zero: start from noise (``start_noise``).
    """

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The correlation of each image's map with the original one, [B]."""
        return pcc(now.map, reference.map)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The correlation with the original map."""
        return {"original_pcc": pcc(now.map, reference.map)}
