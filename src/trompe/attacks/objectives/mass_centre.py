"""The map's centre of mass moves to a place far from where it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.observation import Observation
from trompe.errors import UsageError


def centre(heat: Tensor) -> Tensor:
    """The centre of mass of heat maps [B, H, W] that sum to 1: row and column in pixels, [B, 2]."""
    rows, columns = (
        torch.arange(side, dtype=heat.dtype, device=heat.device) for side in heat.shape[1:]
    )
    return torch.stack([heat.sum(dim=2) @ rows, heat.sum(dim=1) @ columns], dim=1)


@objectives.register("mass_centre")
@dataclass(frozen=True)
class MassCentre(Objective):
    """``|C(h) - c|^2 / |C(h0) - c|^2``, C the centre of mass, c a place that is aimed at.

    Ghorbani et al. (2019) maximise ``|C(h) - C(h0)|^2``, whose gradient is zero at the original
    image; with a fixed aim it is not. Judged by how far the centre has moved.

    Args:
        towards: c, as shares of the height and the width; by default the corner of the image that
            is farthest from the original centre.

    Raises:
        UsageError: if the place lies outside the image.
    """

    images_only = True

    towards: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.towards is not None and not all(0 <= share <= 1 for share in self.towards):
            raise UsageError(f"towards must be two shares within 0..1, not {self.towards}")

    def place(self, reference: Observation) -> Tensor:
        """The place aimed at, row and column in pixels, [B, 2]."""
        origin = centre(reference.map)
        ends = [side - 1 for side in reference.map.shape[1:]]
        if self.towards is not None:
            rows, columns = (
                torch.full_like(origin[:, 0], share * end)
                for share, end in zip(self.towards, ends, strict=True)
            )
            return torch.stack([rows, columns], dim=1)
        middle = torch.stack([torch.full_like(origin[:, 0], end / 2) for end in ends], dim=1)
        return torch.where(origin <= middle, 2 * middle, torch.zeros_like(middle))

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The squared distance from the aim as a share of what it was, [B]."""
        place = self.place(reference)
        before = (centre(reference.map) - place).square().sum(dim=1)
        after = (centre(now.map) - place).square().sum(dim=1)
        return after / before.clamp_min(torch.finfo(before.dtype).tiny)

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """How far the centre has moved as a share of the way to the aim, times -1, [B]."""
        origin = centre(reference.map)
        way = (self.place(reference) - origin).norm(dim=1)
        moved = (centre(now.map) - origin).norm(dim=1)
        return -moved / way.clamp_min(torch.finfo(way.dtype).tiny)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """How far the centre of mass has moved, in pixels."""
        return {"centre_moved": (centre(now.map) - centre(reference.map)).norm(dim=1)}
