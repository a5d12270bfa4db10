"""Smooth changes: only low frequencies, within a ball in the maximum norm."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Constraint, change, constraints, noise_like
from trompe.errors import UsageError
from trompe.norms import LInf
from trompe.per_image import per_image
from trompe.types import InputSpace

_ROUNDS = 3000  # far more than the tolerance by default takes


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _cosines(side: int, share: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The lowest rows of the orthonormal discrete cosine transform (DCT-II), [K, side]."""
    count = max(1, math.floor(share * side + 1e-9))
    rows = torch.arange(count, dtype=torch.float64).unsqueeze(1)
    places = torch.arange(side, dtype=torch.float64).unsqueeze(0)
    basis = torch.cos(math.pi / side * (places + 0.5) * rows) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis.to(device, dtype)


@constraints.register("low_frequency")
@dataclass(frozen=True)
class LowFrequency(Constraint):
    """The change has low frequencies only (Guo et al. 2019), and no pixel exceeds the radius.

    Args:
        share: of the coefficients of the discrete cosine transform along each side that may differ
            from 0, the lowest ones, above 0, at most 1; at least the mean may change.
        radius: largest change of a pixel's channel, pixel units, above 0, at most 1.
        tolerance: how much of higher frequencies an allowed change may have at any pixel, pixel
            units, positive; by default a quarter of an 8-bit level.

    Raises:
        UsageError: if one of them is out of range.
    """

    images_only = True

    share: float = 0.125
    radius: float = 8 / 255
    tolerance: float = 0.25 / 255

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("radius", self.radius)):
            if not 0 < value <= 1:
                raise UsageError(f"the {name} must be above 0 and at most 1, not {value}")
        if not self.tolerance > 0:
            raise UsageError(f"the tolerance must be positive, not {self.tolerance}")

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The allowed image that is nearest in pixel units.

        Dykstra's alternating projections (1983) onto the low frequencies and onto the box of valid
        images within the radius are a proximal gradient method on the multipliers of the box; here
        it is accelerated, with restarts (Beck and Teboulle 2009). It ends when both sets agree to
        the tolerance, at an image that is valid and within the radius exactly.
        """
        reach = space.scale(self.radius, origin)
        unit = space.scale(1.0, origin)

        def boxed(delta: Tensor) -> Tensor:
            image = torch.clamp(origin + unit * delta, origin - reach, origin + reach)
            return space.clamp(image)

        within = space.clamp(torch.clamp(x, origin - reach, origin + reach))
        kept = (within == x).flatten(1).all(dim=1)
        found, done = within, kept & (self._leak(within, origin, space) <= self.tolerance)
        wanted = self.low(change(x, origin, space))
        multipliers = ahead = torch.zeros_like(wanted)
        momentum = torch.ones(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        for _ in range(_ROUNDS):
            if bool(done.all()):
                break
            pushed = ahead + wanted - self.low(ahead)
            moved = pushed - change(boxed(pushed), origin, space)
            step = moved - multipliers
            overshot = ((ahead - moved) * step).flatten(1).sum(dim=1).view_as(momentum) > 0
            momentum = torch.where(overshot, 1.0, momentum)
            grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
            ahead = moved + (momentum - 1) / grown * step
            multipliers, momentum = moved, grown
            smooth = wanted - self.low(multipliers)
            image = boxed(smooth)
            found = torch.where(done.view_as(momentum), found, image)
            # An image of both sets need not be the nearest: the multipliers must have settled too.
            gap = (smooth - change(boxed(multipliers + smooth), origin, space)).abs()
            settled = gap.flatten(1).amax(dim=1) <= self.tolerance
            done = done | (settled & (self._leak(image, origin, space) <= self.tolerance))
        return found

    def low(self, delta: Tensor) -> Tensor:
        """The low frequencies of a change, [B, C, H, W]."""
        rows, columns = (
            _cosines(side, self.share, delta.dtype, delta.device) for side in delta.shape[-2:]
        )
        return rows.t() @ (rows @ delta @ columns.t()) @ columns

    def _leak(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The largest entry of the change's higher frequencies, pixel units, [B]."""
        delta = change(x, origin, space)
        return (delta - self.low(delta)).abs().flatten(1).amax(dim=1)

    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The largest change of a pixel's channel, [B]."""
        return LInf().size(change(x, origin, space))

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Smooth noise of the radius' size."""
        smooth = self.low(noise_like(origin, generator, normal=True))
        step = space.scale(self.radius, origin) * smooth / per_image(LInf().size(smooth), smooth)
        return self.project(origin + step, origin, space)
