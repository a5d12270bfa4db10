"""One objective on the maps of several methods at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Explain, Objective, objectives
from trompe.attacks.objectives.unlike import Unlike
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.types import relative


@objectives.register("several")
@dataclass(frozen=True)
class Several(Objective):
    """The weighted mean of an objective over the methods of ``SideBySide``.

    This is the attacker who knows all methods that a mean or a comparison of explanations is made
    of (Rieger and Hansen 2020). Judged by the method whose map has moved least.

    Args:
        base: the objective of each method, whose tensors ``prepare`` makes.
        weights: of the methods, not negative; equal by default.
        aims: the tensor that ``base`` keeps, one per method, [B, M, ...]; ``prepare`` makes it.
        aimed_by: the field of ``base`` that it goes to.

    Raises:
        UsageError: if a weight is negative, or when used, if their number does not fit, or if
            ``base`` keeps more than one tensor.
    """

    images_only = True

    base: Objective = field(default_factory=Unlike)
    weights: tuple[float, ...] | None = None
    aims: Tensor | None = None
    aimed_by: str = ""

    def __post_init__(self) -> None:
        if self.weights is not None and not all(weight >= 0 for weight in self.weights):
            raise UsageError(f"weights must not be negative, not {self.weights}")

    def prepare(self, reference: Observation, explain: Explain) -> Several:
        """See ``Objective``."""
        ready = []
        for index, part in enumerate(_parts(reference)):

            def explain_part(x: Tensor, target: Tensor, index: int = index) -> Tensor:
                heat = explain(x, target)
                count = heat.shape[-1] // x.shape[-1]
                return relative(heat.chunk(count, dim=-1)[index])

            ready.append(self.base.prepare(part, explain_part))
        tensors = _tensors(ready[0])
        if not tensors:
            return dataclasses.replace(self, base=ready[0])
        if len(tensors) > 1:
            raise UsageError(
                f"several takes objectives that keep one tensor, and {type(self.base).__name__} "
                f"keeps {', '.join(tensors)}"
            )
        aims = torch.stack([getattr(one, tensors[0]) for one in ready], dim=1)
        bare = dataclasses.replace(ready[0], **{tensors[0]: None})
        return dataclasses.replace(self, base=bare, aims=aims, aimed_by=tensors[0])

    def start(self, reference: Observation) -> Tensor | None:
        """See ``Objective``."""
        return self.base.start(reference)

    def _each(self, now: Observation, reference: Observation) -> list[Any]:
        """Per method the objective and what it compares."""
        pairs = list(zip(_parts(now), _parts(reference), strict=True))
        if self.aims is None:
            return [(self.base, *pair) for pair in pairs]
        return [
            (dataclasses.replace(self.base, **{self.aimed_by: self.aims[:, index]}), *pair)
            for index, pair in enumerate(pairs)
        ]

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The weighted mean over the methods, [B]."""
        each = [one(after, before) for one, after, before in self._each(now, reference)]
        weights = (1.0,) * len(each) if self.weights is None else self.weights
        if len(weights) != len(each):
            raise UsageError(f"{len(weights)} weights for {len(each)} methods: give one each")
        total = sum(weight * value for weight, value in zip(weights, each, strict=True))
        return total / sum(weights)  # type: ignore[return-value]  # a sum of tensors is one

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """The largest score of a method, [B]."""
        each = [one.score(after, before) for one, after, before in self._each(now, reference)]
        return torch.stack(each).amax(dim=0)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """What ``base`` notes, as the mean over the methods."""
        each = [one.measures(after, before) for one, after, before in self._each(now, reference)]
        return {name: torch.stack([row[name] for row in each]).mean(dim=0) for name in each[0]}


def _parts(now: Observation) -> list[Observation]:
    """What is seen of each method: a part of the map as wide as the image."""
    count = now.map.shape[-1] // now.x.shape[-1]
    maps = now.map.chunk(count, dim=-1)
    relevances = now.relevance.chunk(count, dim=-1)
    return [
        Observation(now.x, relative(heat), now.logits, relevance)
        for heat, relevance in zip(maps, relevances, strict=True)
    ]


def _tensors(objective: Objective) -> list[str]:
    return [
        one.name
        for one in dataclasses.fields(objective)
        if isinstance(getattr(objective, one.name), Tensor)
    ]
