"""A Euclidean ball, cut down to valid images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Ball, constraints, noise_like
from trompe.norms import L2
from trompe.per_image import per_image
from trompe.types import InputSpace

_HALVINGS = 60
_SLACK = 1e-6  # of the radius: what rounding may add to an image on the ball's surface


@constraints.register("l2")
@dataclass(frozen=True)
class L2Ball(Ball):
    """The Euclidean norm of the change, over all pixels and channels, is at most the radius."""

    norm = L2()

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The nearest valid image of the ball.

        The nearest point of a ball and a box is ``clamp(x + t (x0 - x))`` for the smallest t in
        0..1 that lies in the ball (the optimality conditions of the quadratic program, t being
        m / (1 + m) for the ball's multiplier m); t is found by halving.
        """
        clamped = space.clamp(x)
        outside = self.size(clamped, origin, space) > self.radius * (1 + _SLACK)
        if not bool(outside.any()):
            return clamped
        low = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        high = torch.ones_like(low)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            within = self.size(self._towards(x, origin, space, middle), origin, space)
            fits = within <= self.radius
            high, low = torch.where(fits, middle, high), torch.where(fits, low, middle)
        found = self._towards(x, origin, space, high)
        return torch.where(per_image(outside, x), found, clamped)

    @staticmethod
    def _towards(x: Tensor, origin: Tensor, space: InputSpace, share: Tensor) -> Tensor:
        share = per_image(share, x)
        return space.clamp(x + share * (origin - x))

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Normal noise of the radius' length, cut down to a valid image."""
        noise = noise_like(origin, generator, normal=True)
        step = space.scale(self.radius, origin) * noise / per_image(self.norm.size(noise), noise)
        return self.project(origin + step, origin, space)
