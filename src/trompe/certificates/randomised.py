"""Certificates for SmoothGrad: they need nothing of the network, so they hold at any scale.

The noise is Gaussian, N(0, sigma^2) per entry. Two statements, of two maps:

- The gradient of the smoothed score ``G(x) = E f(x + noise)`` with f within 0..1 (the softmax
  probability of the class; SmoothGrad of it is ``grad G`` in the limit of many samples). By Stein's
  identity ``u^T grad^2 G u = E f (t^2 - 1) / sigma^2`` with t standard normal, at most
  ``2 phi(1) / sigma^2`` in size: a proof, without samples.
- Sparsified SmoothGrad (Levine, Singla and Feizi 2019): the mean S of maps with entries within
  0..1, here 1 for the pixels among the ``top`` share of a gradient map, 0 for the others. Of such S
  ``Phi^-1(S_i)`` is ``1 / sigma``-Lipschitz, so that bounds of S at x bound it in the ball. S(x) is
  known from samples only: the bounds hold with the stated confidence over their draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.certificates.ball import ball
from trompe.certificates.certificate import Certificate
from trompe.certificates.explained_class import explained_class
from trompe.certificates.gates import Range
from trompe.certificates.upper import WIDEN
from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain import explainer
from trompe.types import Explainer

SLOPE = 1 / math.sqrt(2 * math.pi)
"""``sigma ||grad G||`` is at most ``phi(0)``, for scores within 0..1."""
BEND = 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)
"""``sigma^2 ||grad^2 G||`` is at most ``2 phi(1)``: the mean of ``(t^2 - 1)+``."""


@dataclass(frozen=True)
class SparseMaps:
    """How often each pixel was among the top ones.

    Args:
        hits: counts over the samples, int64 [B, H, W].
        samples: how many.
        sigma: of the noise.
    """

    hits: Tensor
    samples: int
    sigma: float

    @property
    def total(self) -> int:
        """How many pixels each sample marks."""
        return int(self.hits[0].sum()) // self.samples

    @property
    def mean(self) -> Tensor:
        """The sparsified SmoothGrad map from the samples, within 0..1, [B, H, W]."""
        return self.hits.double() / self.samples


def sparse_maps(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    sigma: float,
    samples: int,
    top: float = 0.1,
    block: int = 1,
    base: Explainer | None = None,
    chunk: int = 32,
    generator: torch.Generator | None = None,
) -> SparseMaps:
    """Count, over noisy copies, which pixels are among the ``top`` share of the map.

    Args:
        model: any module [B, C, H, W] -> [B, K].
        x: images.
        target: class of each, [B].
        sigma: standard deviation of the noise, in units of x.
        samples: noisy copies per image.
        top: share of the pixels that count, 0..1.
        block: side of the squares of pixels that are added up and count as one.
        base: the method whose map is taken; the gradient by default.
        chunk: copies per pass.
        generator: of the noise; seed 0 by default.
    """
    generator = generator or torch.Generator().manual_seed(0)
    method = base or explainer("gradient")
    rows = []
    for index in range(len(x)):
        hits: Tensor | None = None
        shape = x.shape[1:]
        left = samples
        while left:
            count = min(chunk, left)
            noise = torch.randn((count, *x.shape[1:]), generator=generator, dtype=torch.float32)
            points = x[index] + sigma * noise.to(x.device, x.dtype)
            size = method(model, points, target[index].expand(count)).abs()
            if size.dim() == 4:
                size = F.avg_pool2d(size.sum(dim=1), block)
            shape, size = size.shape[1:], size.flatten(1)
            best = size.topk(max(1, int(top * size.shape[1])), dim=1).indices
            found = torch.zeros_like(size, dtype=torch.int64).scatter_(1, best, 1).sum(dim=0)
            hits = found if hits is None else hits + found
            left -= count
        assert hits is not None  # samples is positive
        rows.append(hits.view(shape).cpu())
    return SparseMaps(torch.stack(rows), samples, sigma)


def interval_at_x(maps: SparseMaps, confidence: float) -> Range:
    """Bounds of every S_i(x), all at once with the given confidence (Clopper and Pearson).

    The error is shared out over all pixels of an image and both sides (union bound).
    """
    from scipy.special import betaincinv

    pixels = maps.hits[0].numel()
    alpha = (1 - confidence) / (2 * pixels)
    hits, n = maps.hits.double().numpy(), maps.samples
    low = torch.as_tensor(betaincinv(hits.clip(1), n - hits + 1, alpha))
    high = torch.as_tensor(betaincinv(hits + 1, (n - hits).clip(1), 1 - alpha))
    low = torch.where(maps.hits == 0, 0.0, low)
    high = torch.where(maps.hits == n, 1.0, high)
    return Range((low / WIDEN).clamp(min=0), (high * WIDEN).clamp(max=1))


def interval_in_ball(at_x: Range, sigma: float, radius: float) -> Range:
    """Bounds of every S_i within the l2 ball: ``Phi(Phi^-1(.) -+ radius / sigma)``."""
    shift = radius / sigma
    low = torch.special.ndtr(torch.special.ndtri(at_x.low) - shift)
    high = torch.special.ndtr(torch.special.ndtri(at_x.high) + shift)
    return Range((low / WIDEN).clamp(min=0), (high * WIDEN).clamp(max=1))


def gradient_bound(sigma: float, radius: float) -> float:
    """At least ``||grad G(x') - grad G(x)||`` within the l2 radius, for scores within 0..1."""
    return WIDEN * min(BEND * radius / sigma**2, 2 * SLOPE / sigma)


def certify_smoothgrad(
    model: nn.Module,
    x: Tensor,
    *,
    radius: float,
    norm: str = "l2",
    target: Tensor | None = None,
    sigma: float = 0.5,
    samples: int = 1000,
    confidence: float = 0.99,
    top: float = 0.1,
    block: int = 1,
    maps: SparseMaps | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Bound the change of SmoothGrad maps of any network; see the module for the two maps.

    ``gradient_l2`` is of the expected SmoothGrad of the class's softmax probability, without
    samples. ``heatmap_l1`` and ``topk_overlap`` are of the expected sparsified SmoothGrad map,
    compared with itself in the ball, and hold with ``confidence`` per image; ``topk_overlap``
    refers to the top k pixels of ``S(x)``, known up to its interval. ``normal_l2`` is the trivial
    2: the length of the expected gradient is not known from below.

    Args:
        model: any module [B, ...] -> [B, K]; no operation is refused.
        x: [B, C, H, W].
        radius: of the ball; ``linf`` balls are covered by the l2 ball around them.
        norm: ``l1``, ``l2`` or ``linf``.
        target: class of each image; by default the predicted one.
        sigma: standard deviation of the noise, in units of x.
        samples: noisy copies per image.
        confidence: of the statements from samples, below 1.
        top: share of the pixels that count in a map.
        block: side of the squares of pixels that count as one: the fewer entries a map has, the
            less the samples' uncertainty weighs (it is shared out over all of them).
        maps: samples already drawn, to certify several radii from; the error is then shared by all
            radii, not multiplied.
        generator: of the noise.

    Returns:
        The certificate; ``confidence`` is below 1.

    Raises:
        UsageError: if a setting is out of range.
    """
    if not (sigma > 0 and samples > 0 and block > 0 and 0 < confidence < 1 and 0 < top < 1):
        raise UsageError(
            "sigma, samples and block must be positive, confidence and top within 0..1"
        )
    judge = frozen(model)
    target = explained_class(judge, x, target)
    if maps is None:
        maps = sparse_maps(
            judge,
            x,
            target,
            sigma=sigma,
            samples=samples,
            top=top,
            block=block,
            generator=generator,
        )
    sigma = maps.sigma
    size = x[0].numel()
    reach = ball(radius, norm).l2(size)
    at_x = interval_at_x(maps, confidence)
    nearby = interval_in_ball(at_x, sigma, reach)
    heat, kept = [], []
    for index in range(len(x)):
        here = Range(at_x.low[index].flatten(), at_x.high[index].flatten())
        near = Range(nearby.low[index].flatten(), nearby.high[index].flatten())
        heat.append(_heatmap(here, reach / sigma, maps.total))
        kept.append(_Kept(near))
    count = len(x)
    bound = gradient_bound(sigma, reach)
    names = {
        "gradient_l2": "Stein, proof",
        "normal_l2": "trivial",
        "heatmap_l1": f"sparsified, {maps.samples} samples, confidence {confidence:g}",
    }
    return Certificate(
        gradient_l2=torch.full((count,), bound, dtype=torch.float64),
        normal_l2=torch.full((count,), 2.0, dtype=torch.float64),
        heatmap_l1=torch.tensor(heat, dtype=torch.float64),
        curvature=torch.full((count,), WIDEN * BEND / sigma**2, dtype=torch.float64),
        target=target.cpu(),
        radius=radius,
        norm=norm,
        method="smoothgrad",
        winners=(names,) * count,
        kept=tuple(kept),
        pixels=maps.hits[0].numel(),
        confidence=confidence,
    )


def _heatmap(here: Range, shift: float, total: float) -> float:
    """The largest l1 change of ``S / sum S``, for S(x) within ``here`` and ``shift = r / sigma``.

    Every sample marks the same number of pixels, so ``sum S`` is that number at x and x': what
    some entries gain, others lose. An entry p = Phi(z) loses at most ``p - Phi(z - shift)``, which
    grows up to z = shift / 2 and falls beyond; it gains at most ``Phi(z + shift) - p``, largest at
    z = -shift / 2. Not knowing p exactly thus costs little.
    """
    low, high = torch.special.ndtri(here.low), torch.special.ndtri(here.high)
    falls = torch.full_like(low, shift / 2).clamp(low, high)
    rises = torch.full_like(low, -shift / 2).clamp(low, high)
    fall = torch.special.ndtr(falls) - torch.special.ndtr(falls - shift)
    rise = torch.special.ndtr(rises + shift) - torch.special.ndtr(rises)
    either = torch.maximum(fall, rise).sum()
    most = min(float(2 * fall.sum()), float(2 * rise.sum()), float(either))
    return min(2.0, WIDEN * most / total + 1e-12)


@dataclass(frozen=True)
class _Kept:
    """How many of the k largest entries of S at x surely are among the k largest in the ball."""

    near: Range

    def __call__(self, k: int) -> int:
        # Any top set that agrees with the box at x is possible; x lies in the ball, so the box of
        # the ball covers it: an entry above all but k - 1 others in the box is in both.
        sure = 0
        for value in self.near.low.sort(descending=True).values[:k]:
            if int((self.near.high >= value).sum()) <= k:
                sure += 1
        return sure
