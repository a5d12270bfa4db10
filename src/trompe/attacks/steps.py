"""How an attack moves along a gradient."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Stepper(Protocol):
    """Moves a batch in place; each image as if it were alone."""

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """Change ``x`` [B, C, H, W] given the gradient of its loss."""
        ...


class AdamStep:
    """Adam (Kingma and Ba 2015), as in the paper: elementwise, so images do not mix.

    Args:
        learning_rate: in normalised units.
    """

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
