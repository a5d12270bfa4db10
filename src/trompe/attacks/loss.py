"""What an attack minimises in all: the objective, the output's price, the change's price."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.attacks.keep import Keep
from trompe.attacks.objectives import Objective
from trompe.attacks.observation import Observation
from trompe.types import InputSpace


@dataclass(frozen=True)
class Loss:
    """``c1 objective + closeness MSE(image) + c2 error of the output`` (Dombrowski et al. 2019).

    Args:
        objective: about the map.
        keep: what of the output stays.
        space: the model's normalisation, which gives the pixel units.
        prefactors: c1 and c2.
        relative: whether the output's error is summed over the classes instead of averaged, so
            that c2 means the same whatever their number.
        closeness: weight of the mean squared change of the image, pixel units 0..1.
    """

    objective: Objective
    keep: Keep
    space: InputSpace
    prefactors: tuple[float, float] = (1e11, 1e6)
    relative: bool = False
    closeness: float = 0.0

    def image_error(self, now: Observation, reference: Observation) -> Tensor:
        """Mean squared change of the image, pixel units, [B]."""
        change = (now.x - reference.x) / self.space.scale(1.0, now.x)
        return change.square().flatten(1).mean(dim=1)

    def __call__(
        self, now: Observation, reference: Observation, strictness: float | Tensor = 1.0
    ) -> Tensor:
        """The loss of each image, [B]; ``strictness`` within 0..1: the share of c2 that counts."""
        return self._total(self.objective(now, reference), now, reference, strictness)

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """What iterates are chosen by, [B]: the objective's score, and the prices in full."""
        return self._total(self.objective.score(now, reference), now, reference, 1.0)

    def _total(
        self, aim: Tensor, now: Observation, reference: Observation, strictness: float | Tensor
    ) -> Tensor:
        map_weight, output_weight = self.prefactors
        loss = map_weight * aim
        if self.closeness:
            loss = loss + self.closeness * self.image_error(now, reference)
        if self.keep.what == "class" or self.keep.tolerance is not None:
            return loss
        if self.relative:
            output_weight = output_weight * now.logits.shape[1]
        return loss + output_weight * strictness * self.keep.error(now, reference)
