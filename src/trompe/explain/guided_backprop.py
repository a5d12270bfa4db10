"""Guided backpropagation (Springenberg et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, one_hot, pick
from trompe.rules.guided import guided_rules
from trompe.types import Explanation


@explainers.register("guided_backprop")
@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient with the negative part of the backward signal cut at every ReLU.

    On a smoothed model the cut is ``softplus_b(R) sigmoid(b z)``, which depends on the scale of R.
    As in the reference implementation, R starts as the logit of the class; the map is divided by
    the logit's magnitude again, so that on a ReLU network it is guided backpropagation as defined.
    """

    name = "guided_backprop"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            relevance, logits = relevance_of(
                model,
                x,
                lambda logits: one_hot(logits, target).abs(),
                lambda _: guided_rules(),
                keep,
            )
            scale = pick(logits, target).abs().clamp_min(torch.finfo(x.dtype).tiny)
            return Explanation(relevance / scale.view(-1, *[1] * (x.dim() - 1)), logits)

        return explained(method, model, x)
