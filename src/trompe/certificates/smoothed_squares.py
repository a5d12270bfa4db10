"""The smoothed map of a certificate from noise, as an explanation that an attack can climb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.certificates.noisy_maps import squares, without_lost
from trompe.engine.mean import drawn
from trompe.explain import Method
from trompe.types import Explanation, InputSpace, relative


@dataclass(frozen=True, eq=False)
class SmoothedSquares(Method):
    """The mean over noisy copies of a method's maps, added up over squares, each of unit variance.

    Each copy's map is divided by the norm of its deviation from its mean, so that the correlation
    of two such means is the one that ``certify(method="noise")`` bounds, up to the few copies in
    place of all: what an adaptive attack has to climb. Without noise it is the plain map over
    squares.

    Args:
        base: The method, or any explainer with derivatives.
        sigma: Standard deviation of the noise, in pixel units; 0 for the plain map.
        space: The model's normalisation.
        pool: Side of the squares, in pixels.
        samples: Noisy copies.
        seed: Of the noise; ``redrawn`` gives others.
        denoise: What is done to a copy before it is explained; see ``Noise``.
    """

    base: Any
    sigma: float
    space: InputSpace
    pool: int
    samples: int = 1
    seed: int = 0
    denoise: Callable[[Tensor], Tensor] | None = None

    name = "smoothed_squares"

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.samples

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``; the map is constant on each square, [B, 1, H, W]."""
        shape = (self.samples, 1, *x.shape[1:])
        total: Tensor | None = None
        for noise in drawn("normal", self.seed, shape, x.dtype, x.device):
            copy = x + self.space.scale(self.sigma, x) * noise if self.sigma else x
            if self.denoise is not None:
                copy = self.denoise(copy)
            found = self.base.relevance if isinstance(self.base, Method) else self.base
            relevance, lost = without_lost(found(model, copy, target))
            share = squares(relative(relevance), self.pool)
            deviation = (share - share.mean(dim=(-2, -1), keepdim=True)).flatten(1).norm(dim=1)
            unit = share / deviation.clamp(min=1e-12).view(-1, 1, 1)
            unit = torch.where(lost.view(-1, 1, 1), 0.0, unit)
            total = unit if total is None else total + unit
        assert total is not None
        wide = F.interpolate(total[:, None], scale_factor=self.pool, mode="nearest")
        wide = wide[..., : x.shape[-2], : x.shape[-1]]
        with torch.no_grad():
            logits = model(x)
        return Explanation(wide, logits)
