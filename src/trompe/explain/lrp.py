"""Layer-wise relevance propagation (Bach et al. 2015), with the paper's rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, one_hot
from trompe.rules.lrp import lrp_rules
from trompe.types import Explanation, InputSpace


@explainers.register("lrp")
@dataclass(frozen=True)
class LRP(Method):
    """z_B in the first layer, z+ in all others; relevance starts as the logit (PAPER.md, 2).

    Args:
        input_space: gives z_B its bounds: the lowest value of a black pixel and the highest of a
            white one over the channels, one number each, as in the reference implementation.
    """

    name = "lrp"
    input_space: InputSpace = field(default_factory=InputSpace)

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        rules = lrp_rules(min(self.input_space.low), max(self.input_space.high))

        def method(x: Tensor, keep: bool) -> Explanation:
            return Explanation(
                *relevance_of(model, x, lambda logits: one_hot(logits, target), lambda _: rules)
            )

        return explained(method, model, x)
