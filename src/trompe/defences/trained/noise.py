"""Training with Gaussian noise: what certificates from noise need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences
from trompe.training import Batch


@defences.register("noise")
@dataclass(frozen=True)
class NoiseTraining(Defence):
    """Every image gets normal noise of a size drawn for it evenly from 0 to ``sigma``.

    As for randomised smoothing (Cohen et al. 2019), of all sizes, so that one network serves every
    smaller noise. The noisy pixels are not clamped.

    Args:
        sigma: The largest standard deviation, pixel units.
    """

    sigma: float = 0.25

    source = "Cohen et al. 2019"

    def inputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """The noisy images."""
        sizes = torch.rand(len(batch.x), generator=batch.generator).to(batch.x)
        sizes = sizes.view(-1, *(1 for _ in batch.x.shape[1:]))
        return batch.x + batch.space.scale(self.sigma, batch.x) * sizes * batch.normal()
