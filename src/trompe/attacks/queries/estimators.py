"""Gradients estimated from values: NES and SPSA."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints import Constraint
from trompe.attacks.queries.base import Queries, QueryAttacker, Spent, query_attackers
from trompe.errors import UsageError
from trompe.types import InputSpace

Values = Callable[[Tensor], Tensor]
"""``values(points [N, B, ...]) -> [N, B]``."""


def estimate(values: Values, x: Tensor, directions: Tensor, size: Tensor | float) -> Tensor:
    """A gradient from differences along pairs of opposite directions.

    ``1 / (2 size n) sum_i (f(x + size u_i) - f(x - size u_i)) u_i``, which has the gradient as its
    mean where the directions' covariance is the identity (exactly so for a quadratic f), and a
    variance that falls as 1 / n.

    Args:
        values: of N copies of the batch.
        x: [B, ...].
        directions: u, [N, B, ...].
        size: of the differences, positive, in the units of x, broadcast to x.

    Returns:
        Of the shape of x, in units of f per unit of x; differences that are no number count as 0.
    """
    ahead = values(x + size * directions)
    behind = values(x - size * directions)
    slope = torch.nan_to_num((ahead - behind) / 2, nan=0.0, posinf=0.0, neginf=0.0)
    weight = slope.view(*slope.shape, *[1] * (x.dim() - 1))
    return (weight * directions).mean(dim=0) / size


@dataclass(frozen=True)
class Estimator(QueryAttacker):
    """Signed steps along an estimated gradient, their size falling as a cosine.

    The values are those of the objective, also where the output is not kept; only images that keep
    it count as found. A step that loses the output is taken back.

    Args:
        pairs: of opposite directions per step; a step costs two questions each, and one more.
        size: of the differences, pixel units 0..1.
        step: of the first step, as a share of the constraint's radius.

    Raises:
        UsageError: if one of them is not positive.
    """

    pairs: int = 10
    size: float = 0.03
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.pairs < 1 or not self.size > 0 or not self.step > 0:
            raise UsageError(
                f"pairs, size and step must be positive, not {self.pairs}, {self.size} and "
                f"{self.step}"
            )

    @abstractmethod
    def directions(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random directions of covariance 1, float64, on the CPU."""

    def run(
        self,
        queries: Queries,
        origin: Tensor,
        constraint: Constraint,
        space: InputSpace,
        generator: torch.Generator,
    ) -> None:
        """See ``QueryAttacker``."""
        unit = space.scale(1.0, origin)
        radius = float(getattr(constraint, "radius", 1.0))
        cost = 2 * self.pairs + 1
        steps = max(1, queries.budget // cost)
        x = constraint.start(origin, space, generator)
        column = [1] * (origin.dim() - 1)
        for index in range(steps):
            shape = (self.pairs, *origin.shape)
            along = self.directions(shape, generator).to(origin.device, origin.dtype)

            def values(points: Tensor) -> Tensor:
                return queries.ask(points, allowed=False).loss

            if queries.left < cost:
                raise Spent
            gradient = estimate(values, x, along, self.size * unit) * unit  # per pixel unit
            decay = 0.5 * (1 + math.cos(math.pi * index / steps))
            move = _steepest(gradient, constraint, origin, space) * decay * self.step * radius
            candidate = constraint.project(x - unit * move, origin, space)
            answer = queries.ask(candidate)
            kept = torch.isfinite(answer.cost).view(-1, *column)
            back = (queries.best != queries.x).flatten(1).any(dim=1).view(-1, *column)
            x = torch.where(kept, candidate, torch.where(back, queries.best, x))


def _steepest(
    gradient: Tensor, constraint: Constraint, origin: Tensor, space: InputSpace
) -> Tensor:
    """The direction of steepest ascent whose size is 1 by the constraint's own measure."""
    from trompe.attacks.constraints import L2Ball

    if isinstance(constraint, L2Ball):
        return constraint.norm.ascent(gradient)
    return gradient.sign()


@query_attackers.register("nes")
@dataclass(frozen=True)
class NES(Estimator):
    """Natural evolution strategies (Ilyas et al. 2018): normal directions in opposite pairs."""

    def directions(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=generator, dtype=torch.float64)


@query_attackers.register("spsa")
@dataclass(frozen=True)
class SPSA(Estimator):
    """Simultaneous perturbation (Spall 1992, Uesato et al. 2018): directions of plus or minus 1."""

    def directions(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """1 or -1 with equal probability."""
        return (2 * torch.randint(2, shape, generator=generator) - 1).double()
