"""Layer-wise relevance propagation (Bach et al. 2015), with the paper's rules or others."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, one_hot
from trompe.rules.composites import Composite, composite_rules
from trompe.types import Explanation, InputSpace


@explainers.register("lrp")
@dataclass(frozen=True)
class LRP(Method):
    """Relevance starts as the logit; by default z_B in the first layer, z+ in all others.

    These are the rules of Dombrowski et al. 2019.

    Args:
        input_space: gives z_B its bounds: the lowest value of a black pixel and the highest of a
            white one over the channels, one number each, as in the reference implementation.
        composite: which rules apply where: ``paper``, ``epsilon``, ``epsilon_plus``,
            ``epsilon_plus_flat``, ``epsilon_gamma_box``, ``alpha2_beta1_flat``, ``attn``, or a
            ``trompe.rules.composites.Composite`` of your own.

    Raises:
        UsageError: if there is no composite of that name.
    """

    name = "lrp"
    input_space: InputSpace = field(default_factory=InputSpace)
    composite: str | Composite = "paper"

    def __post_init__(self) -> None:
        composite_rules(self.composite, self.input_space)

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        rules = composite_rules(self.composite, self.input_space)

        def method(x: Tensor, keep: bool) -> Explanation:
            return Explanation(
                *relevance_of(
                    model, x, lambda logits: one_hot(logits, target), lambda _: rules, keep
                )
            )

        return explained(method, model, x)
