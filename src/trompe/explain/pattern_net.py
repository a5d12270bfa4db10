"""PatternNet (Kindermans et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, pick
from trompe.rules.pattern import pattern_rules
from trompe.rules.patterns import given_patterns
from trompe.types import Explanation


@explainers.register("pattern_net")
@dataclass(frozen=True)
class PatternNet(Method):
    """The gradient with every weight replaced by its learned pattern: the signal in the input.

    Args:
        patterns: by parameter name, as for ``pattern_attribution``.

    Raises:
        PatternError: when called without patterns, or with those of another model.
    """

    name = "pattern_net"
    patterns: Mapping[str, Tensor] = field(default_factory=dict)

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        given_patterns(self.patterns, self.name)

        def start(logits: Tensor) -> Tensor:
            pick(logits, target)  # checks the classes
            return torch.zeros_like(logits).scatter(1, target.view(-1, 1), 1.0)

        def method(x: Tensor, keep: bool) -> Explanation:
            return Explanation(
                *relevance_of(
                    model, x, start, lambda model: pattern_rules(model, self.patterns, signal=True)
                )
            )

        return explained(method, model, x)
