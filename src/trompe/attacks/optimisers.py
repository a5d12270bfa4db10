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


class ScaledAdamStep:
    """Adam on gradients divided by their mean magnitude, its steps falling as a cosine.

    The division makes neither the scale of the loss nor that of a step's surrogate matter; each
    image on its own. Gradients count in pixel units, in which all channels have the same step.

    Args:
        size: of the first step, normalised units, broadcast to [B, C, H, W].
        momentum: share of the gathered direction kept per step, 0..1 (Adam's beta_1).
        memory: share of the gathered squares kept per step, 0..1 (Adam's beta_2).
    """

    def __init__(self, size: Tensor, momentum: float, memory: float = 0.99) -> None:
        self.size = size
        self.momentum = momentum
        self.memory = memory
        self._direction: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        unit = _scaled(grad * self.size)
        if self._direction is None or self._square is None:
            self._direction, self._square = torch.zeros_like(unit), torch.zeros_like(unit)
        self._direction.lerp_(unit, 1 - self.momentum)
        self._square.lerp_(unit.square(), 1 - self.memory)
        # Momentum 1 gathers nothing, and moves nothing.
        unbiased = math.sqrt(1 - self.memory ** (iteration + 1)) / max(
            1 - self.momentum ** (iteration + 1), _TINY
        )
        spread = self._square.sqrt().add_(_TINY)
        x.sub_(_decay(iteration, iterations) * unbiased * self.size * self._direction / spread)


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
        unit = _scaled(grad)
        if self._direction is None:
            self._direction = torch.zeros_like(unit)
        self._direction.mul_(self.momentum).add_(unit)
        x.sub_(_decay(iteration, iterations) * self.size * self._direction.sign())


_TINY = 1e-8


def _scaled(grad: Tensor) -> Tensor:
    """The gradient of each image divided by its mean magnitude."""
    scale = grad.abs().flatten(1).mean(dim=1).view(-1, *[1] * (grad.dim() - 1))
    return grad / scale.clamp_min(torch.finfo(grad.dtype).tiny)


def _decay(iteration: int, iterations: int) -> float:
    """From 1 towards 0, as a cosine."""
    return 0.5 * (1 + math.cos(math.pi * iteration / iterations))
