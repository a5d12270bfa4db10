"""A genetic search (SAFARI, Huang et al. 2023), of changes instead of labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints import Constraint
from trompe.attacks.queries.base import Queries, QueryAttacker, query_attackers
from trompe.errors import UsageError
from trompe.types import InputSpace


@query_attackers.register("genetic")
@dataclass(frozen=True)
class Genetic(QueryAttacker):
    """Populations of allowed images: the better half mates, children mutate, the best survives.

    Args:
        population: images per original, at least 4; a generation costs as many questions.
        mutation: share of a child's blocks of pixels that are drawn anew, within 0..1.
        block: side of these blocks, in pixels.

    Raises:
        UsageError: if one of them is out of range.
    """

    population: int = 20
    mutation: float = 0.2
    block: int = 4

    def __post_init__(self) -> None:
        if self.population < 4 or self.block < 1 or not 0 <= self.mutation <= 1:
            raise UsageError(
                "population must be at least 4, block at least 1 and mutation within 0..1, not "
                f"{self.population}, {self.block} and {self.mutation}"
            )

    def run(
        self,
        queries: Queries,
        origin: Tensor,
        constraint: Constraint,
        space: InputSpace,
        generator: torch.Generator,
    ) -> None:
        """See ``QueryAttacker``."""
        size = min(self.population, queries.budget)
        people = torch.stack(
            [constraint.start(origin, space, generator) for _ in range(size)]
        )  # [N, B, C, H, W]
        costs = queries.ask(people).cost
        rows = torch.arange(origin.shape[0], device=origin.device)
        while queries.left:
            count = min(size - 1, queries.left) if size > 1 else 1
            order = costs.argsort(dim=0)  # [N, B]
            fit = order[: max(1, size // 2)]
            parents = [
                people[fit.gather(0, self._chosen(len(fit), count, origin, generator)), rows]
                for _ in range(2)
            ]
            mixed = torch.where(self._blocks(0.5, count, origin, generator), parents[0], parents[1])
            fresh = torch.stack([constraint.start(origin, space, generator) for _ in range(count)])
            mutated = torch.where(
                self._blocks(self.mutation, count, origin, generator), fresh, mixed
            )
            children = torch.stack([constraint.project(child, origin, space) for child in mutated])
            young = queries.ask(children).cost
            # The best of the parents survives; the children take the places of the worst.
            everyone, all_costs = torch.cat([people, children]), torch.cat([costs, young])
            best = all_costs.argsort(dim=0)[:size]
            people, costs = everyone[best, rows], all_costs.gather(0, best)

    def _chosen(self, among: int, count: int, origin: Tensor, generator: torch.Generator) -> Tensor:
        """The better of two parents drawn, as places in the order of fitness, [count, B]."""
        drawn = torch.randint(among, (2, count, origin.shape[0]), generator=generator)
        return drawn.amin(dim=0).to(origin.device)

    def _blocks(
        self, share: float, count: int, origin: Tensor, generator: torch.Generator
    ) -> Tensor:
        """True in a random share of the blocks of each image, [count, B, 1, H, W]."""
        height, width = origin.shape[-2:]
        grid = (-(-height // self.block), -(-width // self.block))
        drawn = torch.rand(count, origin.shape[0], 1, *grid, generator=generator) < share
        wide = drawn.repeat_interleave(self.block, 3).repeat_interleave(self.block, 4)
        return wide[..., :height, :width].to(origin.device)
