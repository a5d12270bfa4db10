"""The heat maps of noisy copies of an image, batch by batch; none of them is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine.smoothing import unwrapped
from trompe.errors import UsageError
from trompe.explain import Method
from trompe.outputs import declared, outputs_of
from trompe.per_image import per_image
from trompe.types import Explainer, InputSpace, relative

MapFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, x [N, ...], target [N]) -> relevance or heat map, [N, C, H, W], [N, H, W] or [N, D]."""


def squares(share: Tensor, pool: int, sides: int = 2) -> Tensor:
    """Heat maps [B, H, W] added up over squares of ``pool`` pixels, [B, h, w].

    With ``sides`` 1 those of signals [B, C, T] over stretches, with 3 those of volumes
    [B, C, D, H, W] over cubes, each channel by itself.
    """
    if pool == 1:
        return share
    if sides == 2:
        return F.avg_pool2d(share[:, None], pool, ceil_mode=True, divisor_override=1)[:, 0]
    # Padded with zeros to whole blocks, whose means times their size are sums.
    short = [-side % pool for side in share.shape[: -sides - 1 : -1]]
    padded = F.pad(share, [part for one in short for part in (0, one)])
    mean = F.avg_pool1d if sides == 1 else F.avg_pool3d
    return mean(padded, pool) * pool**sides


class NoisyMaps(NamedTuple):
    """One batch of N noisy copies of an image.

    Args:
        shares: Their heat maps over squares, not negative, each summing to 1, [N, P], float64.
        classes: The predicted classes, [N].
    """

    shares: Tensor
    classes: Tensor

    @property
    def standardised(self) -> Tensor:
        """Mean subtracted, divided by its l2 norm; 0 where the map is constant, [N, P].

        The correlation of two maps (PCC) is the product of these.
        """
        centred = self.shares - self.shares.mean(dim=1, keepdim=True)
        size = centred.norm(dim=1, keepdim=True)
        flat = size <= 1e-12 / self.shares.shape[1] ** 0.5
        return torch.where(flat, 0.0, centred / size.clamp(min=1e-300))

    def top(self, k: int) -> Tensor:
        """Which squares are among the k largest of each map; of equals at the border none, [N, P].

        So a constant map marks nothing: no square is favoured by its place.
        """
        value = self.shares.topk(min(k + 1, self.shares.shape[1]), dim=1).values
        if value.shape[1] == k:
            return torch.ones_like(self.shares, dtype=torch.bool)
        kept, next_one = value[:, k - 1 : k], value[:, k : k + 1]
        return torch.where(kept > next_one, self.shares >= kept, self.shares > kept)


@dataclass(frozen=True)
class Noise:
    """Draws noisy copies of one image and explains them.

    Args:
        model: The classifier, [N, ...] -> [N, K].
        explain: The explanation method.
        x: The image, [1, ...], normalised.
        target: The class explained, [1].
        sigma: Standard deviation of the noise, in pixel units.
        input_space: The model's normalisation; ``None`` if x is in pixel units itself.
        pool: Side of the squares over which heat maps are added up, in pixels; of signals the
            length of stretches, of volumes the side of cubes.
        batch_size: Copies per pass.
        generator: Source of the noise.
        denoise: What is done to a noisy copy, [N, ...] normalised, before it is classified and
            explained (denoised smoothing, Salman et al. 2020); nothing by default.
    """

    model: nn.Module
    explain: Explainer | MapFunction
    x: Tensor
    target: Tensor
    sigma: float
    input_space: InputSpace | None
    pool: int
    batch_size: int
    generator: torch.Generator
    denoise: Callable[[Tensor], Tensor] | None = None

    def plain(self) -> tuple[NoisyMaps, torch.Size]:
        """The map of the image itself, N = 1, and the shape of a map over squares."""
        return self._explained(self.x)

    def batches(self, samples: int) -> Iterator[NoisyMaps]:
        """So many noisy copies, in batches."""
        for first in range(0, samples, self.batch_size):
            count = min(self.batch_size, samples - first)
            noise = torch.randn(
                (count, *self.x.shape[1:]),
                generator=self.generator,
                device=self.generator.device,
                dtype=self.x.dtype if self.x.dtype != torch.float16 else torch.float32,
            ).to(self.x)
            if self.input_space is None:
                step = self.sigma * noise
            else:
                step = self.input_space.scale(self.sigma, self.x) * noise
            copies = self.x + step
            if self.denoise is not None:
                with torch.no_grad():
                    copies = self.denoise(copies)
            yield self._explained(copies)[0]

    def _explained(self, points: Tensor) -> tuple[NoisyMaps, torch.Size]:
        target = self.target.expand(len(points))
        logits: Tensor | None = None
        if isinstance(self.explain, Method):  # one pass serves both
            found, logits = self.explain.explain(self.model, points, target)
        else:
            found = self.explain(self.model, points, target)
        found = found.detach()
        sides = points.dim() - 2 if points.dim() in (3, 5) else 2
        fits = found.dim() in (2, 3, 4) if sides == 2 else found.shape == points.shape
        if found.shape[:1] != points.shape[:1] or not fits:
            wanted = "[B, C, H, W], [B, H, W] or [B, D]" if sides == 2 else "maps of their shape"
            raise UsageError(
                f"the explainer returns {tuple(found.shape)} for {len(points)} images: return "
                f"{wanted}"
            )
        share = relative(found.double())
        if share.dim() == sides + (1 if sides == 2 else 2):
            share = squares(share, self.pool, sides)
        shape = share.shape[1:]
        share = share.flatten(1).cpu()
        # A map without a finite total says nothing: it counts as constant.
        lost = ~torch.isfinite(share).all(dim=1, keepdim=True)
        share = torch.where(lost, 1 / share.shape[1], share)
        if logits is None:
            with torch.no_grad():
                logits = self.model(points)
        logits = logits.detach().cpu()
        outputs = declared(unwrapped(self.model)) or outputs_of(logits)
        return NoisyMaps(share, outputs.decision(logits)), shape


def without_lost(relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance maps, [N, ...], those all zero or not finite made constant; which they are, [N].

    As the certificate counts them, and without a derivative.
    """
    total = relevance.detach().abs().flatten(1).sum(dim=1)
    lost = ~(torch.isfinite(total) & (total > 0))
    return torch.where(per_image(lost, relevance), 1.0, relevance), lost
