"""The smoothed map of a certificate from noise, as an explanation that an attack can climb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.certificates.noisy_maps import squares, without_lost
from trompe.engine.mean import chunked_sum, division, drawn
from trompe.explain import Method
from trompe.types import Explanation, InputSpace, relative

_PIXELS = 100_352
"""Copies of together so many pixels are held with their graph: two of 224 x 224."""


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
        draws = drawn("normal", self.seed, shape, x.dtype, x.device)
        keep = torch.is_grad_enabled() and x.requires_grad
        pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
        held = max(1, _PIXELS // pixels) * x.shape[0]
        copies, recompute = division(x, self.samples, held, model, keep)
        chunks = draws.split(copies)

        def part(x: Tensor, i: int) -> Tensor:
            noise = chunks[i]
            step = self.space.scale(self.sigma, x) * noise if self.sigma else 0.0 * noise
            units = self._units(model, (x + step).flatten(0, 1), target.repeat(len(noise)))
            return units.unflatten(0, (len(noise), -1)).sum(dim=0)

        total = chunked_sum(x, part, len(chunks), recompute=recompute)
        wide = F.interpolate(total[:, None], scale_factor=self.pool, mode="nearest")
        wide = wide[..., : x.shape[-2], : x.shape[-1]]
        with torch.no_grad():
            logits = model(x)
        return Explanation(wide, logits)

    def _units(self, model: nn.Module, copies: Tensor, target: Tensor) -> Tensor:
        """The map of each copy over squares, its deviation of length 1, [N, h, w]."""
        if self.denoise is not None:
            copies = self.denoise(copies)
        found = self.base.relevance if isinstance(self.base, Method) else self.base
        relevance, lost = without_lost(found(model, copies, target))
        share = squares(relative(relevance), self.pool)
        deviation = (share - share.mean(dim=(-2, -1), keepdim=True)).flatten(1).norm(dim=1)
        unit = share / deviation.clamp(min=1e-12).view(-1, 1, 1)
        return torch.where(lost.view(-1, 1, 1), 0.0, unit)
