"""Signed steps with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.steps.base import Step, check_share, check_size, decay, scaled, steps
from trompe.types import InputSpace


@steps.register("signed")
@dataclass(frozen=True)
class Signed(Step):
    """Signed steps with momentum (Dong et al. 2018), their size falling as a cosine.

    The momentum gathers gradients divided by their mean magnitude, so that neither the scale of the
    loss nor that of a step's surrogate matters; each image on its own.

    Args:
        size: of the first step, pixel units 0..1, positive.
        momentum: share of the gathered direction kept per step, 0..1.

    Raises:
        UsageError: if one of them is out of range.
    """

    size: float
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_size("size", self.size)
        check_share("momentum", self.momentum)

    def begin(self, x: Tensor, space: InputSpace) -> SignedStepper:
        """See ``Step``."""
        return SignedStepper(space.scale(self.size, x), self.momentum)


class SignedStepper:
    """``Signed`` in use; its size in normalised units, broadcast to [B, C, H, W]."""

    def __init__(self, size: Tensor, momentum: float) -> None:
        self.size = size
        self.momentum = momentum
        self._direction: Tensor | None = None

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        unit = scaled(grad)
        if self._direction is None:
            self._direction = torch.zeros_like(unit)
        self._direction.mul_(self.momentum).add_(unit)
        x.sub_(decay(iteration, iterations) * self.size * self._direction.sign())
