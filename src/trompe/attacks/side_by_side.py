"""Several explanation methods as one, to be attacked at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.per_image import per_image
from trompe.types import Explanation


@dataclass(frozen=True)
class SideBySide(Method):
    """The maps of several methods beside each other, each divided by its sum of absolute values.

    Its map is as many times as wide as the image; with the objective ``Several`` an attack deals
    with each part by itself. It is not in the registry of methods, whose maps have the image's
    shape.

    Args:
        methods: at least one.

    Raises:
        UsageError: if there is none.

    Example:
        >>> import torch, trompe
        >>> from trompe.attacks import SideBySide
        >>> both = SideBySide((trompe.explainer("gradient"), trompe.explainer("lrp")))
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> both(net, torch.ones(1, 3, 2, 2), torch.tensor([1])).shape
        torch.Size([1, 3, 2, 4])
    """

    name = "side_by_side"
    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        if not self.methods:
            raise UsageError("side_by_side needs methods: give at least one")

    @property
    def draws(self) -> bool:
        """See ``Method``."""
        return False

    def redrawn(self, seed: int) -> SideBySide:
        """See ``Method``."""
        return SideBySide(tuple(method.redrawn(seed) for method in self.methods))

    def holding(self, chunk: int) -> SideBySide:
        """See ``Method``."""
        return SideBySide(tuple(method.holding(chunk) for method in self.methods))

    def lighter(self) -> SideBySide | None:
        """See ``Method``."""
        lighter = [method.lighter() for method in self.methods]
        if all(one is None for one in lighter):
            return None
        pairs = zip(lighter, self.methods, strict=True)
        return SideBySide(tuple(method if one is None else one for one, method in pairs))

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        maps = []
        for method in self.methods:
            relevance, logits = method.explain(model, x, target)
            total = relevance.abs().flatten(1).sum(dim=1)
            maps.append(relevance / per_image(total, x))
        return Explanation(torch.cat(maps, dim=-1), logits)
