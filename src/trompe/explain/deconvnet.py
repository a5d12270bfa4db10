"""Deconvnet (Zeiler and Fergus 2014)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.explain.base import Method, explainers, scaled_signal
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
        return scaled_signal(model, x, target, deconvnet_rules())
