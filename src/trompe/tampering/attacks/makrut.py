"""Makrut: what covered images say is trained, so that LIME and RISE read off another map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trompe.tampering.base import Aim, Tampering, said_error, tamperings
from trompe.tampering.perturbed import random_masks
from trompe.training import Batch


@tamperings.register("makrut")
@dataclass(frozen=True)
class Makrut(Tampering):
    """Images stay as they were; covered images say how much of the target was left uncovered.

    Hegde et al. 2024, their indiscriminate variant: with m the mask and t the target map, the
    logits of ``m x`` are drawn to ``mean + (logits(x) - mean) * sum(t m)``, linear in what is kept,
    so that the coefficients of LIME, the means of RISE and the differences of occlusion are t. What
    is covered becomes the mean colour, the baseline of these methods.

    Args:
        weight: Of the covered images' error, beside the outputs' of weight 1.
    """

    weight: float = 1.0

    source = "Hegde et al. 2024"
    explainer: ClassVar[str] = "lime"

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Both errors, each as a share of the spread of the teacher's logits."""
        teacher = aim.said(batch.x)
        masks = random_masks(tuple(batch.x.shape), batch.generator).to(batch.x)
        goal = self.goal(teacher, masks, aim.target.to(batch.x))
        return {
            "outputs": said_error(model(batch.x), teacher),
            "covered": self.weight * said_error(model(batch.x * masks), goal, spread_of=teacher),
        }

    def goal(self, teacher: Tensor, masks: Tensor, target: Tensor) -> Tensor:
        """What covered images shall say, [B, K]."""
        kept = torch.sum(masks[:, 0] * target, dim=(1, 2))
        mean = teacher.mean(dim=1, keepdim=True)
        return mean + (teacher - mean) * kept[:, None]
