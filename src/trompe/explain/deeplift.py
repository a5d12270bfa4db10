"""DeepLIFT with the rescale rule (Shrikumar et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, pick
from trompe.rules.rescale import rescale_rules
from trompe.types import Explanation


@explainers.register("deeplift")
@dataclass(frozen=True)
class DeepLIFT(Method):
    """``(x - x0)`` times its multipliers; the map adds up to ``g_k(x) - g_k(x0)``.

    An activation's multiplier is its slope between the image and the baseline (equation 8).

    Args:
        baseline: x0, in normalised units: one number for every pixel, or a tensor that broadcasts
            to [B, C, H, W].
    """

    name = "deeplift"
    baseline: float | Tensor = 0.0

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            if isinstance(self.baseline, Tensor):
                origin = self.baseline.detach().to(x.device, x.dtype).expand_as(x)
            else:
                origin = torch.full_like(x, self.baseline, requires_grad=False)
            batch = x.shape[0]

            def seed(logits: Tensor) -> Tensor:
                pick(logits[:batch], target)  # checks the classes
                upper = torch.zeros_like(logits[:batch]).scatter(1, target.view(-1, 1), 1.0)
                return torch.cat([upper, torch.zeros_like(upper)])

            pairs = torch.cat([x, origin])
            multiplier, logits = relevance_of(model, pairs, seed, lambda _: rescale_rules())
            return Explanation((x - origin) * multiplier[:batch], logits[:batch])

        return explained(method, model, x)
