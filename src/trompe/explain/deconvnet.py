"""Deconvnet (Zeiler and Fergus 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, one_hot, pick
from trompe.rules.deconvnet import deconvnet_rules
from trompe.types import Explanation


@explainers.register("deconvnet")
@dataclass(frozen=True)
class Deconvnet(Method):
    """The backward signal of the gradient, rectified at every ReLU instead of masked by it.

    On a smoothed model the ReLU of the signal is a softplus, which depends on its scale: as in
    guided backpropagation the signal starts as the logit of the class, and is divided by it again.
    """

    name = "deconvnet"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            relevance, logits = relevance_of(
                model,
                x,
                lambda logits: one_hot(logits, target).abs(),
                lambda _: deconvnet_rules(),
                keep,
            )
            scale = pick(logits, target).abs().clamp_min(torch.finfo(x.dtype).tiny)
            return Explanation(relevance / scale.view(-1, *[1] * (x.dim() - 1)), logits)

        return explained(method, model, x)
