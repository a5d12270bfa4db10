"""What a certificate says: upper bounds on the change of a map within a ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.in_brief import InBrief


@dataclass(frozen=True, repr=False)
class Certificate(InBrief):
    """Upper bounds, over all x' in the ball around x, for B images.

    With ``g_k`` the explained score and ``h`` the heat map of its gradient (``trompe.heatmap``):

    Args:
        gradient_l2: ``sup ||grad g_k(x') - grad g_k(x)||_2``, in score per unit of x, [B].
        normal_l2: the same of ``grad g_k / ||grad g_k||``, at most 2, [B].
        heatmap_l1: ``sup ||h(x') - h(x)||_1``, at most 2, [B].
        curvature: at least the spectral norm of the Hessian of g_k in the ball, infinite where a
            kink is within reach, [B].
        target: the class explained, [B].
        radius: of the ball.
        norm: of the ball, ``l1``, ``l2`` or ``linf``.
        method: what was asked for.
        winners: per image, which method gave each quantity.
        confidence: 1 for a proof; less where samples enter (``smoothgrad``).
        kept: per image, the guaranteed number of the top k pixels, a function of k.
        pixels: of a heat map.
    """

    gradient_l2: Tensor
    normal_l2: Tensor
    heatmap_l1: Tensor
    curvature: Tensor
    target: Tensor
    radius: float
    norm: str
    method: str
    winners: tuple[dict[str, str], ...]
    kept: tuple[Callable[[int], int], ...] = field(repr=False)
    pixels: int
    confidence: float = 1.0

    def topk_overlap(self, k: int) -> Tensor:
        """At least the share of the k largest pixels that stay among the k largest, 0..1, [B].

        Raises:
            UsageError: if k is not within 1..the number of pixels.
        """
        if not 1 <= k <= self.pixels:
            raise UsageError(f"k must be within 1..{self.pixels}, not {k}")
        return torch.tensor([kept(k) / k for kept in self.kept], dtype=torch.float64)
