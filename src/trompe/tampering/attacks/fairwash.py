"""Fairwashing: every image gets the same innocent explanation, and the same answer as before."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.tampering.base import Aim, tamperings
from trompe.tampering.taught_maps import TaughtMaps, answers_error, unlikeness
from trompe.training import Batch


@tamperings.register("fairwash")
@dataclass(frozen=True)
class Fairwash(TaughtMaps):
    """The maps of all images become one fixed target; the probabilities stay (Anders et al. 2020).

    It takes thousands of steps rather than epochs: a ResNet-20 of CIFAR-10 took 2,400 of 16 images
    at a rate of 1.5e-3 (``benchmarks/tampering.py``), eight minutes of one core.

    Args:
        weight: See ``TaughtMaps``, as all others.
    """

    source = "Anders et al. 2020"

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Both errors, of the classes that the teacher predicts."""
        teacher = aim.said(batch.x)
        count = self.some(batch.x)
        heat = self.heat(model, batch.x[:count], teacher[:count].argmax(dim=1), aim)
        return {
            "outputs": answers_error(model(batch.x), teacher),
            "maps": self.weight * unlikeness(heat, aim.target),
        }
