"""The mean of several methods' maps (Rieger and Hansen 2020): to fool it, all must be fooled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.explain.base import Method, explainers
from trompe.explain.grad_times_input import GradTimesInput
from trompe.explain.gradient import Gradient
from trompe.explain.integrated_grad import IntegratedGrad
from trompe.input_space import InputSpace
from trompe.types import Explanation


@explainers.register("mean_of")
@dataclass(frozen=True)
class MeanOf(Method):
    """The mean of the methods' magnitudes, each map divided by its total.

    Its heat map is the mean of the methods' heat maps. It is attacked like any other method,
    through all of them at once.

    Args:
        methods: whose maps are averaged; one or more.

    Raises:
        UsageError: if there is none.
    """

    name = "mean_of"
    methods: tuple[Method, ...] = (Gradient(), GradTimesInput(), IntegratedGrad())

    def __post_init__(self) -> None:
        if not self.methods or not all(isinstance(one, Method) for one in self.methods):
            raise UsageError("mean_of takes one or more methods: MeanOf((explainer('lrp'), ...))")

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``; not negative, each image summing to 1."""
        found = [method.explain(model, x, target) for method in self.methods]
        shares = [magnitudes(one.map) for one in found]
        return Explanation(torch.stack(shares).mean(dim=0), found[0].logits)

    def within(self, space: InputSpace) -> Method:
        """See ``Method``."""
        return self._each(lambda method: method.within(space))

    def holding(self, chunk: int) -> Method:
        """See ``Method``."""
        return self._each(lambda method: method.holding(chunk))

    def redrawn(self, seed: int) -> Method:
        """See ``Method``."""
        return self._each(lambda method: method.redrawn(seed))

    def with_hard_cut(self) -> Method:
        """See ``Method``."""
        return self._each(lambda method: method.with_hard_cut())

    def check_outputs(self, probabilities: bool) -> None:
        """See ``Method``."""
        for method in self.methods:
            method.check_outputs(probabilities)

    def _each(self, change: Any) -> Method:
        return dataclasses.replace(self, methods=tuple(change(one) for one in self.methods))


def magnitudes(relevance: Tensor) -> Tensor:
    """Magnitudes divided by the image's total, [B, ...]; not numbers where a map is all zero."""
    size = relevance.abs()
    total = size.flatten(1).sum(dim=1)
    return size / total.view(-1, *(1 for _ in size.shape[1:]))
