"""Excitation backpropagation (Zhang et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.sweep import relevance_of
from trompe.explain.base import Method, explainers, pick
from trompe.rules.alpha_beta import z_plus
from trompe.rules.composites import Composite
from trompe.types import Explanation, InputSpace


@explainers.register("excitation_backprop")
@dataclass(frozen=True)
class ExcitationBackprop(Method):
    """The probability that a winning neuron was won by each input, from the class to the pixels.

    It passes a layer in proportion to ``x_i w+_ij``, without biases (equation 3), as z+ does, and
    starts as 1 at the class. The map is a distribution over pixels, but for what dead neurons lose.
    Where activations may be negative, positive contributions count, as in z+ by sign.
    """

    name = "excitation_backprop"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        rule = z_plus(bias=False)
        rules = Composite(rule, rule, sums="bounded").rules(InputSpace())

        def start(logits: Tensor) -> Tensor:
            pick(logits, target)  # checks the classes
            return torch.zeros_like(logits).scatter(1, target.view(-1, 1), 1.0)

        def method(x: Tensor, keep: bool) -> Explanation:
            return Explanation(*relevance_of(model, x, start, lambda _: rules, keep))

        return explained(method, model, x)
