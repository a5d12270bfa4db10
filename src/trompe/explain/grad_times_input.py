"""Gradient times input (Shrikumar et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.engine import explained
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import score_gradient
from trompe.types import Explanation


@explainers.register("grad_times_input")
@dataclass(frozen=True)
class GradTimesInput(Method):
    """``x * d g_k / d x``, x normalised (Dombrowski et al. 2019)."""

    name = "grad_times_input"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            gradient, logits = score_gradient(model, x, target, keep)
            return Explanation(x * gradient, logits)

        return explained(method, model, x)
