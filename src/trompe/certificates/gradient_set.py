"""From a set of gradients to the worst normal, heat map and top-k pixels within it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.certificates.gates import Range
from trompe.certificates.upper import WIDEN


@dataclass(frozen=True)
class Gradients:
    """All gradients in question: those in a box and, at once, in a ball.

    Args:
        centre: the gradient at x, [C, H, W] or [D].
        change: box of the change.
        ball: at least the l2 norm of the change; may be infinite.
    """

    centre: Tensor
    change: Range
    ball: float

    def widened(self, most: Tensor) -> Gradients:
        """The set grown by ``most`` in every entry."""
        change = Range(self.change.low - most, self.change.high + most)
        return Gradients(self.centre, change, self.ball + float(most.norm()) * WIDEN)

    @property
    def l2(self) -> float:
        """The most the gradient changes, in l2."""
        most = torch.maximum(-self.change.low, self.change.high)
        return min(self.ball, WIDEN * float(most.norm()))

    @property
    def normal(self) -> float:
        """The most ``grad / ||grad||`` changes, in l2: a chord of the cone around the ball.

        2 where the gradient may vanish.
        """
        size = float(self.centre.norm())
        share = self.l2 * WIDEN / size if size > 0 else math.inf
        if not share < 1:
            return 2.0
        return min(2.0, WIDEN * 2 * math.sin(math.asin(share) / 2))

    def magnitude(self) -> tuple[Tensor, Range, float]:
        """Channel sums of absolute values, flat: at x, in the box, and how far they move in l2."""
        low, high = self.centre + self.change.low, self.centre + self.change.high
        most = torch.maximum(low.abs(), high.abs())
        least = torch.where((low <= 0) & (high >= 0), 0.0, torch.minimum(low.abs(), high.abs()))
        now = self.centre.abs()
        channels = 1
        if now.dim() == 3:
            channels = now.shape[0]
            now, least, most = now.sum(dim=0), least.sum(dim=0), most.sum(dim=0)
        least, most = least / WIDEN, most * WIDEN
        # |sum_c |a_c| - |b_c|| <= sqrt(C) ||a - b||, pixel by pixel.
        ball = WIDEN * math.sqrt(channels) * self.l2
        return now.flatten(), Range(least.flatten(), most.flatten()), ball

    @property
    def heatmap(self) -> float:
        """The most the heat map changes, in l1; at most 2."""
        now, box, ball = self.magnitude()
        total = float(now.sum())
        if not total > 0:
            return 2.0
        share, box = now / total, Range(box.low / total, box.high / total)
        return min(2.0, 2 * _by_box(share, box), 2 * _by_ball(share, ball / total))

    def kept(self, k: int) -> int:
        """How many of the k largest pixels surely stay among the k largest."""
        now, box, ball = self.magnitude()
        order = now.argsort(descending=True, stable=True)
        inside, outside = order[:k], order[k:]
        # By the box: n swaps need n insiders that may fall to where n outsiders may rise.
        floor = box.low[inside].sort().values
        ceiling = box.high[outside].sort().values
        above = len(outside) - torch.searchsorted(ceiling, floor)
        swaps = torch.arange(1, k + 1, device=now.device)
        by_box = int((above >= swaps).sum())
        # By the ball: a swapped pair (a, b) costs at least (a - b)^2 / 2 of its square.
        pairs = min(k, len(outside))
        a = now[inside].sort().values[:pairs]
        b = now[outside].sort(descending=True).values[:pairs]
        cost = ((a - b).square() / 2).cumsum(0) / WIDEN
        by_ball = int((cost <= (WIDEN * ball) ** 2).sum())
        return k - min(by_box, by_ball, pairs)


def _by_box(share: Tensor, box: Range) -> float:
    """Half the largest l1 change of ``m / sum(m)`` for m in the box; m(x) sums to 1.

    With the total fixed at t, the l1 change is twice ``A(t) = sum (share - low / t)+`` at most,
    and twice ``B(t) = sum (high / t - share)+``. A grows with t and B falls: no t exceeds A at any
    point where A >= B.
    """

    def grown(t: float) -> float:
        return float((share - box.low / t).clamp(min=0).sum())

    def fallen(t: float) -> float:
        return float((box.high / t - share).clamp(min=0).sum())

    low, high = max(float(box.low.sum()), 1e-300), float(box.high.sum()) * WIDEN
    if not math.isfinite(high):
        return 1.0
    for _ in range(60):
        middle = math.sqrt(low * high) if high > 4 * low else (low + high) / 2
        if grown(middle) >= fallen(middle):
            high = middle
        else:
            low = middle
    return WIDEN * grown(high) if grown(high) >= fallen(high) else 1.0


def _by_ball(share: Tensor, ball: float) -> float:
    """Half the largest l1 change of ``m / sum(m)`` for ``||m - m(x)|| <= ball``; m(x) sums to 1.

    For a set S of pixels with share q at x, the fall of its share is ``a . dm / (1 + 1 . dm)`` with
    ``a = q - 1_S``. It is at most v if ``ball ||a - v|| <= v``; the norm depends on the size of S
    and, convexly, on q: only the smallest and the largest q of each size matter.
    """
    if not math.isfinite(ball):
        return 1.0
    ordered = share.sort().values
    count = len(share)
    sizes = torch.arange(count + 1, dtype=share.dtype)
    zero = share.new_zeros(1)
    smallest = torch.cat([zero, ordered.cumsum(0)])
    largest = torch.cat([zero, ordered.flip(0).cumsum(0)])

    def holds(v: float) -> bool:
        worst = 0.0
        for q in (smallest, largest):
            square = sizes * (1 - q + v).square() + (count - sizes) * (q - v).square()
            worst = max(worst, float(square.max()))
        return WIDEN * ball * math.sqrt(worst) <= v

    if not holds(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
