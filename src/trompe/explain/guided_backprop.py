"""Guided backpropagation (Springenberg et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from trompe.explain.base import Method, explainers, scaled_signal
from trompe.rules.guided import guided_rules
from trompe.types import Explanation


@explainers.register("guided_backprop")
@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient with the negative part of the backward signal cut at every ReLU.

    On a smoothed model the cut is ``softplus_b(R) sigmoid(b z)``, which depends on the scale of R.
    As in the reference implementation, R starts as the logit of the class; the map is divided by
    the logit's magnitude again, so that on a ReLU network it is guided backpropagation as defined.

    Args:
        hard_cut: on a smoothed model, ``relu(R) sigmoid(b z)`` instead, which does not depend on
            that scale and is much nearer to the map of the ReLU network: what an attack follows.
    """

    name = "guided_backprop"
    hard_cut: bool = False

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return scaled_signal(model, x, target, guided_rules(self.hard_cut))

    def with_hard_cut(self) -> Method:
        """See ``Method``."""
        return replace(self, hard_cut=True)
