"""The shape of a step, and what several kinds share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.per_image import per_image
from trompe.registry import Registry
from trompe.types import InputSpace


class Stepper(Protocol):
    """A step in use: it remembers what it has seen of one batch."""

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """Change ``x`` [B, C, H, W] in place, given the gradient of its loss.

        Each image moves as if it were alone.
        """
        ...


@runtime_checkable
class Heeding(Protocol):
    """A step in use that goes by how good its iterates are."""

    def heed(self, x: Tensor, score: Tensor) -> None:
        """Learn the score [B] of ``x`` [B, C, H, W], from which it steps next; lower is better."""
        ...


@dataclass(frozen=True)
class Step(ABC):
    """A way of moving: a frozen dataclass whose fields are its options."""

    images_only: ClassVar[bool] = False
    """Whether it is of images [B, C, H, W] alone, and not of signals or volumes."""

    @abstractmethod
    def begin(self, x: Tensor, space: InputSpace) -> Stepper:
        """Return a stepper for images like ``x`` [B, C, H, W], normalised."""


steps: Registry[type[Step]] = Registry("step", "trompe.attacks.steps")
"""All kinds of steps, by name."""


def check_size(name: str, value: float) -> None:
    """Refuse a size of a step that is none.

    Raises:
        UsageError: if it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be positive and finite, not {value}")


def check_share(name: str, value: float) -> None:
    """Refuse a share that is none.

    Raises:
        UsageError: if it is not within 0..1.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must be within 0..1, not {value}")


TINY = 1e-8


def scaled(grad: Tensor) -> Tensor:
    """The gradient of each image divided by its mean magnitude."""
    scale = per_image(grad.abs().flatten(1).mean(dim=1), grad)
    return grad / scale.clamp_min(torch.finfo(grad.dtype).tiny)


def decay(iteration: int, iterations: int) -> float:
    """From 1 towards 0, as a cosine."""
    return 0.5 * (1 + math.cos(math.pi * iteration / iterations))
