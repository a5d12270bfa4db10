"""The frame of methods that cut the backward signal: its scale is that of the logit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import RuleSet, relevance_of
from trompe.explain.base import one_hot, pick
from trompe.types import Explanation


def scaled_signal(model: nn.Module, x: Tensor, target: Tensor, rules: RuleSet) -> Explanation:
    """Sweep from the magnitude of each class's logit, and divide the map by it again.

    On a smoothed model the cut of the signal depends on the signal's scale; the reference
    implementation starts it as the logit.

    Args:
        model: any module [B, C, H, W] -> [B, K].
        x: images [B, C, H, W].
        target: class of each, [B].
        rules: made of vector-Jacobian products and of functions of the signal alone.
    """

    def method(x: Tensor, keep: bool) -> Explanation:
        relevance, logits = relevance_of(
            model, x, lambda logits: one_hot(logits, target).abs(), lambda _: rules, keep
        )
        scale = pick(logits, target).abs().clamp_min(torch.finfo(x.dtype).tiny)
        return Explanation(relevance / scale.view(-1, *[1] * (x.dim() - 1)), logits)

    return explained(method, model, x)
