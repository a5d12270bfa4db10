"""Adam on gradients divided by their size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.steps.base import TINY, Step, check_share, check_size, decay, scaled, steps
from trompe.types import InputSpace


@steps.register("scaled_adam")
@dataclass(frozen=True)
class ScaledAdam(Step):
    """Adam on gradients divided by their mean magnitude, its steps falling as a cosine.

    The division makes neither the scale of the loss nor that of a step's surrogate matter; each
    image on its own. Gradients count in pixel units, in which all channels have the same step.

    Args:
        size: of the first step, pixel units 0..1, positive.
        momentum: share of the gathered direction kept per step, 0..1 (Adam's beta_1).
        memory: share of the gathered squares kept per step, 0..1 (Adam's beta_2).

    Raises:
        UsageError: if one of them is out of range.
    """

    size: float
    momentum: float = 0.9
    memory: float = 0.99

    def __post_init__(self) -> None:
        check_size("size", self.size)
        check_share("momentum", self.momentum)
        check_share("memory", self.memory)

    def begin(self, x: Tensor, space: InputSpace) -> ScaledAdamStepper:
        """See ``Step``."""
        return ScaledAdamStepper(space.scale(self.size, x), self.momentum, self.memory)


class ScaledAdamStepper:
    """``ScaledAdam`` in use; its size in normalised units, broadcast to [B, C, H, W]."""

    def __init__(self, size: Tensor, momentum: float, memory: float = 0.99) -> None:
        self.size = size
        self.momentum = momentum
        self.memory = memory
        self._direction: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        unit = scaled(grad * self.size)
        if self._direction is None or self._square is None:
            self._direction, self._square = torch.zeros_like(unit), torch.zeros_like(unit)
        self._direction.lerp_(unit, 1 - self.momentum)
        self._square.lerp_(unit.square(), 1 - self.memory)
        # Momentum 1 gathers nothing, and moves nothing.
        unbiased = math.sqrt(1 - self.memory ** (iteration + 1)) / max(
            1 - self.momentum ** (iteration + 1), TINY
        )
        spread = self._square.sqrt().add_(TINY)
        x.sub_(decay(iteration, iterations) * unbiased * self.size * self._direction / spread)
