"""The shape of a constraint: where a manipulated image must stay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.norms import Norm
from trompe.registry import Registry
from trompe.types import InputSpace


@dataclass(frozen=True)
class Constraint(ABC):
    """A set of allowed images around an original one.

    A frozen dataclass whose fields are its options. Images are normalised, [B, C, H, W]; every
    size is in pixel units 0..1, and each image counts as if it were alone.
    """

    images_only: ClassVar[bool] = False
    """Whether it is of images [B, C, H, W] alone, and not of signals or volumes."""

    @abstractmethod
    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The allowed image nearest to ``x``: always a valid image, and itself if allowed."""

    @abstractmethod
    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """How large the change is in the constraint's own measure, pixel units, [B]."""

    @abstractmethod
    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """A random allowed image."""

    def violation(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The largest distance of a pixel from the nearest allowed image, pixel units, [B]."""
        away = (x - self.project(x, origin, space)) / space.scale(1.0, x)
        return away.abs().flatten(1).amax(dim=1)


@dataclass(frozen=True)
class Ball(Constraint):
    """All valid images within a radius; certificates speak of balls of the same norms.

    A class of its own for each norm names it in ``norm``, or measures changes itself in ``size``.

    Args:
        radius: pixel units 0..1, positive.

    Raises:
        UsageError: if the radius is not positive and finite.
    """

    radius: float
    norm: ClassVar[Norm]

    def __post_init__(self) -> None:
        if not 0 < self.radius < float("inf"):
            raise UsageError(f"the radius must be positive and finite, not {self.radius}")

    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The norm of the change, over all pixels and channels, [B]."""
        return self.norm.size(change(x, origin, space))


constraints: Registry[type[Constraint]] = Registry("constraint", "trompe.attacks.constraints")
"""All constraints, by name."""


def change(x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
    """The change of an image in pixel units, [B, C, H, W]."""
    return (x - origin) / space.scale(1.0, x)


def noise_like(origin: Tensor, generator: torch.Generator | None, *, normal: bool) -> Tensor:
    """Standard normal, or uniform within -1..1, drawn on the CPU so that devices agree."""
    if normal:
        drawn = torch.randn(origin.shape, generator=generator, dtype=origin.dtype)
    else:
        drawn = 2 * torch.rand(origin.shape, generator=generator, dtype=origin.dtype) - 1
    return drawn.to(origin.device)
