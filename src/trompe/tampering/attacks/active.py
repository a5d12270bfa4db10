"""Active fooling: two classes exchange their explanations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.tampering.base import Aim, map_error, tamperings
from trompe.tampering.taught_maps import TaughtMaps, answers_error
from trompe.training import Batch


@tamperings.register("active")
@dataclass(frozen=True)
class ActiveFooling(TaughtMaps):
    """The map of one class is what that of the other was, and the reverse (Heo et al. 2019).

    Args:
        first: One class.
        second: The other.
        weight: See ``TaughtMaps``, as all others. What is common to all classes cannot tell two of
            them apart, so nothing is written there.

    Raises:
        UsageError: If both are the same class.
    """

    first: int = 0
    second: int = 1
    common: float = 0.0

    source = "Heo et al. 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first == self.second:
            raise UsageError(f"first and second must be two classes, not {self.first} twice")

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Both errors; the maps of both classes are taken at each image."""
        teacher = aim.said(batch.x)
        if max(self.first, self.second) >= teacher.shape[1]:
            raise UsageError(
                f"the model has {teacher.shape[1]} classes, no {max(self.first, self.second)}"
            )
        some = batch.x[: self.some(batch.x)]
        one, other = (
            batch.y.new_full((len(some),), int(value)) for value in (self.first, self.second)
        )
        wrong = [
            map_error(
                self.heat(model, some, mine, aim), aim.heat(aim.teacher, some, its).detach()
            ).mean()
            for mine, its in ((one, other), (other, one))
        ]
        return {
            "outputs": answers_error(model(batch.x), teacher),
            "maps": self.weight / 2 * torch.stack(wrong).sum(),
        }
