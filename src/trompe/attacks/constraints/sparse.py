"""Few pixels change, each as much as it likes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints.base import Constraint, change, constraints, noise_like
from trompe.errors import UsageError
from trompe.types import InputSpace


@constraints.register("sparse")
@dataclass(frozen=True)
class Sparse(Constraint):
    """At most a share of the pixels changes, in any of their channels.

    Args:
        share: of the pixels, above 0, at most 1; at least one pixel may change.
        radius: largest change of a pixel's channel, pixel units 0..1.

    Raises:
        UsageError: if one of them is out of range.
    """

    share: float = 0.01
    radius: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("radius", self.radius)):
            if not 0 < value <= 1:
                raise UsageError(f"the {name} must be above 0 and at most 1, not {value}")

    def project(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The allowed image that is nearest in pixel units.

        Those pixels change for which going back to the original would cost most: the squared
        change wanted less what is lost of it by staying valid and within the radius.
        """
        reach = space.scale(self.radius, origin)
        changed = space.clamp(torch.clamp(x, origin - reach, origin + reach))
        back = space.clamp(origin)
        gain = _square(change(x, back, space)) - _square(change(x, changed, space))
        pixels = gain[0].numel()
        count = max(1, int(self.share * pixels))
        best = gain.flatten(1).topk(count, dim=1).indices
        chosen = torch.zeros_like(gain, dtype=torch.bool).flatten(1).scatter_(1, best, True)
        return torch.where(chosen.view_as(gain).unsqueeze(1), changed, back)

    def size(self, x: Tensor, origin: Tensor, space: InputSpace) -> Tensor:
        """The share of the pixels that changed, [B]."""
        changed = (x != space.clamp(origin)).any(dim=1)
        return changed.flatten(1).to(x.dtype).mean(dim=1)

    def start(
        self, origin: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """Uniform noise on random pixels."""
        noise = space.scale(self.radius, origin) * noise_like(origin, generator, normal=False)
        return self.project(origin + noise, origin, space)


def _square(away: Tensor) -> Tensor:
    """Squared size of each pixel's change over its channels, [B, H, W]."""
    return away.square().sum(dim=1)
