"""The shape of an objective."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from trompe.attacks.observation import Observation
from trompe.registry import Registry


class Objective(Protocol):
    """A loss per image, lower the nearer the attack is to its aim."""

    def __call__(
        self, now: Observation, reference: Observation, strictness: float | Tensor = 1.0
    ) -> Tensor:
        """Compare the current image with the original one; returns [B].

        ``strictness`` within 0..1 is the share that the output's weight has so far.
        """
        ...


objectives: Registry[Any] = Registry("objective", "trompe.attacks.objectives")
"""All objectives, by name."""
