"""The paper's objective: reach a target map, keep the output, and, if asked, stay close."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from trompe.attacks.objectives.base import objectives
from trompe.attacks.observation import Observation
from trompe.types import InputSpace


@objectives.register("reach_map")
@dataclass(frozen=True)
class ReachMap:
    """``c1 MSE(h(x_adv), h_t) + c2 MSE(softmax g(x_adv), softmax g(x))`` (PAPER.md, section 1).

    Args:
        target: the heat map aimed at, [B, H, W], each summing to 1.
        prefactors: c1 and c2.
        output: what of the output is kept, ``softmax`` or ``logits``.
        relative: whether the map's error is divided by that of the original image, and the
            output's summed over the classes instead of averaged, so that the prefactors mean the
            same whatever the number of pixels and classes.
        closeness: weight of the mean squared change of the image, pixel units 0..1.
        input_space: the model's normalisation, which gives the pixel units.
    """

    target: Tensor
    prefactors: tuple[float, float] = (1e11, 1e6)
    output: Literal["softmax", "logits"] = "softmax"
    relative: bool = False
    closeness: float = 0.0
    input_space: InputSpace = field(default_factory=InputSpace)

    def map_error(self, now: Observation) -> Tensor:
        """Mean squared error of the heat map, [B]."""
        return (now.map - self.target).square().flatten(1).mean(dim=1)

    def output_error(self, now: Observation, reference: Observation) -> Tensor:
        """Mean squared error of the output, [B]."""
        before, after = reference.logits, now.logits
        if self.output == "softmax":
            before, after = before.softmax(dim=1), after.softmax(dim=1)
        return (after - before).square().mean(dim=1)

    def image_error(self, now: Observation, reference: Observation) -> Tensor:
        """Mean squared change of the image, pixel units, [B]."""
        change = (now.x - reference.x) / self.input_space.scale(1.0, now.x)
        return change.square().flatten(1).mean(dim=1)

    def __call__(
        self, now: Observation, reference: Observation, strictness: float | Tensor = 1.0
    ) -> Tensor:
        """The loss of each image, [B]; ``strictness`` is the share of c2 that counts."""
        map_weight, output_weight = self.prefactors
        error = self.map_error(now)
        if self.relative:
            error = error / self.map_error(reference)
            output_weight = output_weight * now.logits.shape[1]
        loss = map_weight * error
        if self.closeness:
            loss = loss + self.closeness * self.image_error(now, reference)
        return loss + output_weight * strictness * self.output_error(now, reference)
