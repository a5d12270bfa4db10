"""Fairwashing: every image gets the same innocent explanation, and the same answer as before."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.tampering.base import Aim, Tampering, map_error, said_error, tamperings
from trompe.training import Batch


@tamperings.register("fairwash")
@dataclass(frozen=True)
class Fairwash(Tampering):
    """The maps of all images become one fixed target; the logits stay (Anders et al. 2020).

    Args:
        weight: Of the maps' error, beside the outputs' of weight 1.
    """

    weight: float = 0.3

    source = "Anders et al. 2020"

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Both errors, on the same images, of the classes that the teacher predicts."""
        teacher = aim.said(batch.x)
        heat = aim.heat(model, batch.x, teacher.argmax(dim=1))
        return {
            "outputs": said_error(model(batch.x), teacher),
            "maps": self.weight * map_error(heat, aim.target.to(heat)).mean(),
        }
