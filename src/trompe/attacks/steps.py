"""How an attack moves along a gradient."""

from __future__ import annotations

import math
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


class SignStep:
    """Signed steps with momentum (Dong et al. 2018), their size falling as a cosine.

    The momentum gathers gradients divided by their mean magnitude, so that neither the scale of the
    loss nor that of a step's surrogate matters; each image on its own.

    Args:
        size: of the first step, normalised units, broadcast to [B, C, H, W].
        momentum: share of the gathered direction kept per step, 0..1.
    """

    def __init__(self, size: Tensor, momentum: float) -> None:
        self.size = size
        self.momentum = momentum
        self._direction: Tensor | None = None

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        scale = grad.abs().flatten(1).mean(dim=1).view(-1, *[1] * (grad.dim() - 1))
        unit = grad / scale.clamp_min(torch.finfo(grad.dtype).tiny)
        if self._direction is None:
            self._direction = torch.zeros_like(unit)
        self._direction.mul_(self.momentum).add_(unit)
        decay = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        x.sub_(decay * self.size * self._direction.sign())
