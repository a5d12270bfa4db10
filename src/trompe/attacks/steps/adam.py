"""Adam, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.steps.base import Step, check_size, steps
from trompe.types import InputSpace


@steps.register("adam")
@dataclass(frozen=True)
class Adam(Step):
    """Adam (Kingma and Ba 2015), elementwise, so that images do not mix.

    Args:
        learning_rate: the size of a step in normalised units, positive.

    Raises:
        UsageError: if it is out of range.
    """

    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_size("learning_rate", self.learning_rate)

    def begin(self, x: Tensor, space: InputSpace) -> AdamStepper:
        """See ``Step``."""
        return AdamStepper(self.learning_rate)


class AdamStepper:
    """Adam in use; see ``Adam``."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._optimiser: torch.optim.Adam | None = None

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        if self._optimiser is None:
            self._optimiser = torch.optim.Adam([x], lr=self.learning_rate)
        x.grad = grad
        self._optimiser.step()
        x.grad = None
