"""The gradient of the class score (Simonyan et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import RuleSet, relevance_of, vjp
from trompe.explain.base import Method, explainers, pick
from trompe.types import Explanation


def score_gradient(model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
    """``d g_k / d x`` and the logits; x requires grad."""
    logits = model(x)
    try:
        (gradient,) = torch.autograd.grad(pick(logits, target).sum(), x, create_graph=keep)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return _of_the_record(model, x, target, keep)
    return Explanation(gradient, logits)


def _of_the_record(model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
    """The gradient of a model that overwrites what its gradient needs, by a record out of place."""

    def seed(logits: Tensor) -> Tensor:
        return torch.zeros_like(logits).scatter(1, target.view(-1, 1), 1.0)

    rules = RuleSet("gradient", {}, default=vjp)
    return Explanation(*relevance_of(model, x, seed, lambda _: rules, keep))


@explainers.register("gradient")
@dataclass(frozen=True)
class Gradient(Method):
    """``d g_k / d x``, with g_k the logit of class k (Dombrowski et al. 2019)."""

    name = "gradient"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: score_gradient(model, x, target, keep), model, x)
