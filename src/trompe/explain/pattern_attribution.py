"""Pattern attribution (Kindermans et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, one_hot
from trompe.rules.pattern import pattern_rules
from trompe.rules.patterns import given_patterns
from trompe.types import Explanation


@explainers.register("pattern_attribution")
@dataclass(frozen=True)
class PatternAttribution(Method):
    """The gradient with every weight multiplied elementwise by its learned pattern.

    Args:
        patterns: by parameter name; learned by ``trompe.rules.patterns.learn_patterns`` (the
            command ``trompe patterns``), read by ``load_patterns``.

    Raises:
        PatternError: when called without patterns, or with those of another model.
    """

    name = "pattern_attribution"
    patterns: Mapping[str, Tensor] = field(default_factory=dict)

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        given_patterns(self.patterns, self.name)

        def method(x: Tensor, keep: bool) -> Explanation:
            return Explanation(
                *relevance_of(
                    model,
                    x,
                    lambda logits: one_hot(logits, target),
                    lambda model: pattern_rules(model, self.patterns),
                )
            )

        return explained(method, model, x)
