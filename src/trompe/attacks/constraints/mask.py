"""Changes within a region only: a mask, or a patch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Constraint, change, constraints, noise_like
from trompe.attacks.regions import Box, box_mask, check_box
from trompe.errors import UsageError
from trompe.types import InputSpace


@dataclass(frozen=True)
class Within(Constraint):
    """Pixels outside a region stay as they are; inside they change up to a radius.

    Args:
        radius: largest change of a pixel's channel, pixel units, above 0, at most 1.

    Raises:
        UsageError: if the radius is out of range.
    """

    images_only = True

    radius: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise UsageError(f"the radius must be above 0 and at most 1, not {self.radius}")

    @abstractmethod
    def region(self, origin: Tensor) -> Tensor:
        """True where pixels may change, [H, W]."""

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """Clamp the pixels of the region, and put back the others."""
        reach = space.scale(self.radius, origin)
        changed = space.clamp(torch.clamp(x, origin - reach, origin + reach))
        return torch.where(self.region(origin), changed, space.clamp(origin))

    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The largest change of a pixel's channel, [B]."""
        return change(x, origin, space).abs().flatten(1).amax(dim=1)

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Uniform noise in the region."""
        noise = space.scale(self.radius, origin) * noise_like(origin, generator, normal=False)
        return self.project(origin + noise, origin, space)


@constraints.register("mask")
@dataclass(frozen=True)
class Mask(Within):
    """Only the pixels of a mask change.

    Args:
        mask: true, or not 0, where pixels may change, [H, W], the same for all images; by default
            all of them.

    Raises:
        UsageError: if the radius is out of range or the mask empty, or, when used, if the mask is
            of another size than the images.
    """

    mask: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is not None and (self.mask.dim() != 2 or not bool(self.mask.any())):
            raise UsageError(
                f"the mask (shape {tuple(self.mask.shape)}) must be [H, W], true somewhere"
            )

    def region(self, origin: Tensor) -> Tensor:
        """See ``Within``."""
        sides = origin.shape[-2:]
        if self.mask is None:
            return torch.ones(sides, dtype=torch.bool, device=origin.device)
        if self.mask.shape != sides:
            raise UsageError(
                f"the mask has the shape {tuple(self.mask.shape)}, the images {tuple(sides)}: "
                "resize it first"
            )
        return self.mask.to(origin.device) != 0


@constraints.register("patch")
@dataclass(frozen=True)
class Patch(Within):
    """Only a rectangle changes, of any content (Subramanya et al. 2019).

    Args:
        box: its top, left, bottom and right, as shares of the height and the width; by default a
            square of 8 % of the area in the upper left corner, as published.

    Raises:
        UsageError: if the radius or the box is out of range.
    """

    box: Box = (0.0, 0.0, 0.2828, 0.2828)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_box(self.box)

    def region(self, origin: Tensor) -> Tensor:
        """See ``Within``."""
        return box_mask(self.box, origin.shape[-2], origin.shape[-1], origin) != 0
