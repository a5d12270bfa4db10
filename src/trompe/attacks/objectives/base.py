"""The shape of an objective: what an attack makes of a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from torch import Tensor

from trompe.attacks.observation import Observation
from trompe.registry import Registry
from trompe.written_part import made

Explain = Callable[[Tensor, Tensor], Tensor]
"""``explain(x [B, C, H, W], target [B])``: the heat maps on the original model, [B, H, W]."""


@dataclass(frozen=True)
class Objective(ABC):
    """A number per image that an attack makes small: the lower, the nearer it is to its aim.

    A frozen dataclass whose fields are its options. Each image counts as if it were alone. Fields
    that are tensors have the batch first; they are handed to a captured step as its inputs.
    """

    images_only: ClassVar[bool] = False
    """Whether it is of images [B, C, H, W] alone, and not of signals or volumes."""

    def prepare(self, reference: Observation, explain: Explain) -> Objective:
        """Return the objective with all that it takes from the original images in its fields.

        Args:
            reference: the original images, seen by the original model.
            explain: gives further heat maps on the original model.
        """
        return self

    def start(self, reference: Observation) -> Tensor | None:
        """Images to start from, [B, C, H, W], where the gradient is zero at the original ones."""
        return None

    @abstractmethod
    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The number of each image, [B], differentiable; ``now`` is seen by the surrogate."""

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """What the best iterate is chosen by, [B], lower is further; on the original model.

        It does not change where a relevance map is multiplied by a positive number.
        """
        return self(now, reference)

    @abstractmethod
    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """What the history notes of every step, by name, [B] each; the first is shown."""

    @property
    def aim(self) -> Tensor | None:
        """The heat map aimed at, [B, H, W], each summing to 1; ``None`` where there is none."""
        return None


objectives: Registry[type[Objective]] = Registry("objective", "trompe.attacks.objectives")
"""All objectives, by name."""

DEFAULT_OBJECTIVE = "reach_map"
"""Of every attack, in the library and on the command line."""


def takes_target(objective: Objective | type[Objective]) -> bool:
    """Whether an objective aims at a map that is given to it: it has a field ``target``."""
    return "target" in {field.name for field in fields(objective)}


def written_objective(text: str, *, relative: bool) -> Objective:
    """The objective that a name, with or without options, stands for.

    Args:
        text: such as ``unlike`` or ``unlike:measure=cosine``.
        relative: for its field ``relative``, where it has one and no option is given.

    Raises:
        UsageError: if there is no such objective or option.
    """
    objective: Objective = made(objectives, text)
    if ":" not in text and "relative" in {field.name for field in fields(objective)}:
        return replace(objective, **{"relative": relative})
    return objective
