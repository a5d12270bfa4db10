"""A ball in the sum of absolute changes, cut down to valid images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Ball, change, constraints, noise_like
from trompe.norms import L1
from trompe.per_image import per_image
from trompe.types import InputSpace

_HALVINGS = 60
_SLACK = 1e-6  # of the radius: what rounding may add to an image on the ball's surface


@constraints.register("l1")
@dataclass(frozen=True)
class L1Ball(Ball):
    """The sum of absolute changes, over all pixels and channels, is at most the radius."""

    norm = L1()

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The valid image of the ball that is nearest in pixel units.

        The optimality conditions of the quadratic program give every entry of the change d by one
        multiplier m >= 0: ``d = clamp(shrink(u, m))``, u the change wanted, shrink moving it by m
        towards 0 and clamp keeping the image valid (Croce and Hein 2021, APGD-L1, proposition 2.1);
        m is found by halving.
        """
        clamped = space.clamp(x)
        outside = self.size(clamped, origin, space) > self.radius * (1 + _SLACK)
        if not bool(outside.any()):
            return clamped
        wanted = change(x, origin, space)
        low = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        high = wanted.abs().flatten(1).amax(dim=1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = self.size(self._shrunk(wanted, origin, space, middle), origin, space) <= (
                self.radius
            )
            high, low = torch.where(fits, middle, high), torch.where(fits, low, middle)
        found = self._shrunk(wanted, origin, space, high)
        return torch.where(per_image(outside, x), found, clamped)

    @staticmethod
    def _shrunk(wanted: Tensor, origin: Tensor, space: InputSpace, by: Tensor) -> Tensor:
        """The image whose change is the one wanted, moved towards 0 by as much, and valid."""
        by = per_image(by, wanted)
        kept = wanted.sign() * (wanted.abs() - by).clamp_min(0)
        return space.clamp(origin + space.scale(1.0, origin) * kept)

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Uniform noise of the radius' size, cut down to a valid image."""
        noise = noise_like(origin, generator, normal=False)
        step = space.scale(self.radius, origin) * noise / per_image(self.norm.size(noise), noise)
        return self.project(origin + step, origin, space)
