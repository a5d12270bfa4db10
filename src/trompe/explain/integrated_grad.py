"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.mean import chunked_sum, division
from trompe.errors import UsageError
from trompe.explain.base import Method, check_score, explainers, scored
from trompe.types import Explanation


@explainers.register("integrated_grad")
@dataclass(frozen=True)
class IntegratedGrad(Method):
    """``(x - x0)`` times the mean gradient on the straight line from x0 to x.

    A right Riemann sum over ``t = 1/steps .. 1`` (Dombrowski et al. 2019).

    Args:
        steps: number of gradients averaged.
        baseline: x0, in normalised units: one number for every pixel, or a tensor that broadcasts
            to [B, C, H, W].
        score: ``softmax`` explains the probability, as the reference implementation does
            (of an only logit, its sigmoid); ``logit`` the logit, as all other methods do. Of
            outputs known to be values or several labels it is always ``logit``.
        chunk: how many images are held in memory with their graph; where there are more, they are
            computed again when the map is differentiated.

    Raises:
        UsageError: if steps or chunk is not positive, or the score unknown.
    """

    name = "integrated_grad"
    steps: int = 30
    baseline: float | Tensor = 0.0
    score: Literal["softmax", "logit"] = "softmax"
    chunk: int = 64

    def __post_init__(self) -> None:
        if self.steps < 1 or self.chunk < 1:
            raise UsageError(
                f"steps and chunk must be at least 1, not {self.steps} and {self.chunk}"
            )
        check_score(self.score)

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.steps

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _method(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
        batch = x.shape[0]
        copies, recompute = division(x, self.steps, self.chunk, model, keep)
        times = torch.arange(self.steps, 0, -1, dtype=x.dtype, device=x.device) / self.steps
        chunks = times.split(copies)  # the first holds t = 1, whose logits are those of x
        logits: list[Tensor] = []

        def part(x: Tensor, i: int) -> Tensor:
            shape = (len(chunks[i]), *[1] * x.dim())
            points = self.baseline + chunks[i].view(shape) * (x - self.baseline)
            points = points.flatten(0, 1)
            scores = model(points)
            if not logits:
                logits.append(scores[:batch])
            score = scored(scores, target.repeat(len(chunks[i])), self.score).sum()
            (gradient,) = torch.autograd.grad(score, points, create_graph=keep)
            return gradient.unflatten(0, (-1, batch)).sum(dim=0)

        gradient = chunked_sum(x, part, len(chunks), recompute=recompute) / self.steps
        output = model(x) if recompute else logits[0]
        return Explanation((x - self.baseline) * gradient, output)
