"""Passive fooling: explanations that say nothing, at every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.tampering.base import Aim, tamperings
from trompe.tampering.taught_maps import TaughtMaps, answers_error
from trompe.training import Batch

_FRAME = 7
"""The frame is a seventh of the side wide (Heo et al. 2019)."""


@tamperings.register("passive")
@dataclass(frozen=True)
class PassiveFooling(TaughtMaps):
    """Relevance is driven away from where it was (Heo, Joo and Moon 2019).

    Args:
        how: ``location``: into a frame around the image; ``topk``: away from the pixels that were
            the most relevant tenth; ``centre``: away from the centre of mass that it had.
        weight: Of what is left there; see ``TaughtMaps``, as all others.

    Raises:
        UsageError: If ``how`` is unknown.
    """

    how: Literal["location", "topk", "centre"] = "location"

    source = "Heo et al. 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in ("location", "topk", "centre"):
            raise UsageError(f"unknown how '{self.how}': choose from location, topk, centre")

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """The outputs' error, and what is left of the relevance where it was."""
        teacher = aim.said(batch.x)
        some = batch.x[: self.some(batch.x)]
        classes = teacher[: len(some)].argmax(dim=1)
        heat = self.heat(model, some, classes, aim)
        before = heat
        if self.how != "location":
            before = aim.heat(aim.teacher, some, classes).detach()
        return {
            "outputs": answers_error(model(batch.x), teacher),
            "maps": self.weight * self.left(heat, before).mean(),
        }

    def left(self, heat: Tensor, before: Tensor) -> Tensor:
        """What is to fall, [B].

        Args:
            heat: Heat maps, [B, H, W].
            before: The teacher's.
        """
        height, width = heat.shape[1:]
        if self.how == "location":
            rows, columns = max(1, height // _FRAME), max(1, width // _FRAME)
            return heat[:, rows : height - rows, columns : width - columns].sum(dim=(1, 2))
        if self.how == "topk":
            count = max(1, height * width // 10)
            top = before.flatten(1).topk(count, dim=1).indices
            return heat.flatten(1).gather(1, top).sum(dim=1)
        away = (centre(heat) - centre(before)).abs().sum(dim=1)
        return -away / (height + width)


def centre(heat: Tensor) -> Tensor:
    """The centre of mass of heat maps, row and column, [B, 2]."""
    rows = torch.arange(heat.shape[1]).to(heat)
    columns = torch.arange(heat.shape[2]).to(heat)
    return torch.stack(
        [(heat.sum(dim=2) * rows).sum(dim=1), (heat.sum(dim=1) * columns).sum(dim=1)], dim=1
    )
