"""Moving along a family of transformations of the original image, instead of pixel by pixel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.steps.base import Step, check_share, check_size
from trompe.attacks.steps.scaled_adam import ScaledAdamStepper
from trompe.types import InputSpace


@dataclass(frozen=True)
class Transform(Step):
    """Base of the steps whose images are ``T(theta, x0)``: the parameters theta are what moves.

    Each step takes the gradient of the image back to theta, and makes the image anew of the
    original one. The constraint of such an attack is ``ValidImage``, or a ball that bounds the
    change besides; a random start of the image has no effect beyond the first step.

    Args:
        bound: largest absolute value of a parameter, positive.
        size: of the first step, as a share of the bound.
        momentum: share of the gathered direction kept per step, 0..1.

    Raises:
        UsageError: if one of them is out of range.
    """

    bound: float = 0.05
    size: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_size("bound", self.bound)
        check_size("size", self.size)
        check_share("momentum", self.momentum)

    @abstractmethod
    def identity(self, origin: Tensor) -> Tensor:
        """The parameters that change nothing, zeros, [B, ...]."""

    @abstractmethod
    def image(self, theta: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The original images [B, C, H, W] transformed: valid ones, differentiable in theta."""

    def begin(self, x: Tensor, space: InputSpace) -> TransformStepper:
        """See ``Step``; ``x`` are the original images."""
        return TransformStepper(self, x.detach().clone(), space)


class TransformStepper:
    """A ``Transform`` in use: its parameters, moved by Adam on scaled gradients."""

    def __init__(self, transform: Transform, origin: Tensor, space: InputSpace) -> None:
        self.transform = transform
        self.origin = origin
        self.space = space
        self.theta = transform.identity(origin)
        size = torch.full_like(self.theta[:1], transform.bound * transform.size)
        self._adam = ScaledAdamStepper(size, transform.momentum)

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        with torch.enable_grad():
            theta = self.theta.detach().requires_grad_(True)
            image = self.transform.image(theta, self.origin, self.space)
            (along,) = torch.autograd.grad(image, theta, grad)
        bound = self.transform.bound
        self._adam.step(self.theta, along, iteration, iterations)
        self.theta.clamp_(-bound, bound)
        with torch.no_grad():
            x.copy_(self.transform.image(self.theta, self.origin, self.space))
