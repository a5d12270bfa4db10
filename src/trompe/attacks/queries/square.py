"""Square search (Andriushchenko et al. 2020), on maps instead of labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.constraints import Constraint
from trompe.attacks.queries.base import Queries, QueryAttacker, query_attackers, reach
from trompe.errors import UsageError
from trompe.types import InputSpace

_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 questions


@query_attackers.register("square")
@dataclass(frozen=True)
class Square(QueryAttacker):
    """Squares of the change are set to plus or minus the radius; what is better stays.

    It starts from vertical stripes of plus or minus the radius. In a ball other than that of the
    maximum norm a square has the height that reaches the ball's surface by itself, and the image
    is projected.

    Args:
        p_init: share of the pixels in the first squares, above 0, at most 1; it is halved after
            10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 of 10,000 questions, or the same
            shares of any other budget.

    Raises:
        UsageError: if the share is out of range.
    """

    p_init: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.p_init <= 1:
            raise UsageError(f"p_init must be above 0 and at most 1, not {self.p_init}")

    def share(self, asked: int, budget: int) -> float:
        """The share of the pixels in a square after so many questions."""
        place = asked / budget * 10_000
        return self.p_init / 2 ** sum(place > limit for limit in _HALVED_AT)

    def run(
        self,
        queries: Queries,
        origin: Tensor,
        constraint: Constraint,
        space: InputSpace,
        generator: torch.Generator,
    ) -> None:
        """See ``QueryAttacker``."""
        batch, channels, height, width = origin.shape
        unit = space.scale(1.0, origin)
        column = [1] * (origin.dim() - 1)
        stripes = _signs((batch, channels, 1, width), generator, origin).expand_as(origin)
        size = reach(constraint, origin, space, stripes).view(-1, *column)
        x = constraint.project(origin + unit * size * stripes, origin, space)
        lowest = torch.minimum(queries.ask(x).cost, queries.loss)
        x = torch.where((lowest < queries.loss).view(-1, *column), x, origin)
        while queries.left:
            area = self.share(queries.asked, queries.budget) * height * width
            side = min(max(round(area**0.5), 1), height, width)
            window = _windows(batch, side, height, width, generator, origin)
            signs = _signs((batch, channels, 1, 1), generator, origin)
            size = reach(constraint, origin, space, window.expand_as(origin)).view(-1, *column)
            changed = torch.where(window > 0, origin + unit * size * signs, x)
            candidate = constraint.project(changed, origin, space)
            cost = queries.ask(candidate).cost
            better = cost < lowest
            lowest = torch.where(better, cost, lowest)
            x = torch.where(better.view(-1, *column), candidate, x)


def _signs(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """1 or -1 with equal probability."""
    drawn = torch.randint(2, shape, generator=generator)
    return (2 * drawn - 1).to(like.device, like.dtype)


def _windows(
    batch: int, side: int, height: int, width: int, generator: torch.Generator, like: Tensor
) -> Tensor:
    """1 in a square at a random place of each image, 0 elsewhere, [B, 1, H, W]."""
    tops = torch.randint(height - side + 1, (batch, 1), generator=generator)
    lefts = torch.randint(width - side + 1, (batch, 1), generator=generator)
    rows, columns = torch.arange(height), torch.arange(width)
    down = (rows >= tops) & (rows < tops + side)
    right = (columns >= lefts) & (columns < lefts + side)
    window = down.unsqueeze(2) & right.unsqueeze(1)
    return window.unsqueeze(1).to(like.device, like.dtype)
