"""Pattern attribution (Kindermans et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.errors import PatternError
from trompe.explain.base import Method, explainers, one_hot
from trompe.rules.pattern import pattern_rules
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
        if not self.patterns:
            raise PatternError(
                "pattern attribution needs patterns learned from data: run 'trompe patterns' and "
                "pass the file with --patterns"
            )

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
