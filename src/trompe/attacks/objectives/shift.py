"""The map moves to another place, and keeps the distribution of its values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Explain, Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.metrics import pcc


@dataclass(frozen=True)
class TowardsOwnMap(Objective):
    """Base of the objectives whose target map is made from the original images.

    ``MSE(h, h_t) / MSE(h0, h_t)``, h_t the map aimed at.

    Args:
        aimed: h_t, [B, H, W]; ``prepare`` makes it.
    """

    aimed: Tensor | None = None

    @property
    def aim(self) -> Tensor | None:
        """See ``Objective``."""
        return self.aimed

    def _known(self) -> Tensor:
        if self.aimed is None:
            raise UsageError(f"{type(self).__name__} has no map to reach yet: call prepare first")
        return self.aimed

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The error as a share of the original map's, [B]."""
        aimed = self._known()
        before = (reference.map - aimed).square().flatten(1).sum(dim=1)
        after = (now.map - aimed).square().flatten(1).sum(dim=1)
        return after / before.clamp_min(torch.finfo(before.dtype).tiny)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """The map's correlation with the one aimed at, and with the original one."""
        return {
            "map_pcc": pcc(now.map, self._known()),
            "original_pcc": pcc(now.map, reference.map),
        }


@objectives.register("shift")
@dataclass(frozen=True)
class Shift(TowardsOwnMap):
    """Reach the original map, moved (Huang et al. 2023, "Focus-Shifting Attack").

    What leaves the picture at one edge comes in at the other.

    Args:
        by: how far down and to the right, as shares of the height and the width, -1..1.
        shuffle: in place of moving, a seed by which all pixels of the map are exchanged.
        aimed: see ``TowardsOwnMap``.

    Raises:
        UsageError: if a share is out of range, or, when used, the map stays where it was.
    """

    images_only = True

    aimed: Tensor | None = None
    by: tuple[float, float] = (0.5, 0.5)
    shuffle: int | None = None

    def __post_init__(self) -> None:
        if not all(-1 <= share <= 1 for share in self.by):
            raise UsageError(f"shift: the shares must be within -1..1, not {self.by}")

    def prepare(self, reference: Observation, explain: Explain) -> Shift:
        """See ``Objective``."""
        heat = reference.map.detach()
        if self.shuffle is not None:
            draws = torch.Generator().manual_seed(self.shuffle)
            order = torch.randperm(heat[0].numel(), generator=draws).to(heat.device)
            return replace(self, aimed=heat.flatten(1)[:, order].view_as(heat))
        down, right = (
            round(share * side) for share, side in zip(self.by, heat.shape[1:], strict=True)
        )
        if not down % heat.shape[1] and not right % heat.shape[2]:
            raise UsageError(
                f"shift: by {self.by} the map of {heat.shape[1]} by {heat.shape[2]} pixels stays "
                "where it is: move it by at least a pixel, and by less than the whole side"
            )
        return replace(self, aimed=heat.roll((down, right), dims=(1, 2)))
