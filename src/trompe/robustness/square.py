"""The member without derivatives: random squares of pixels, kept where the map gets worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trompe.attacks.constraints import Ball, LInfBall
from trompe.types import InputSpace

_HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_OF = 10_000
P_INIT = 0.8


def share_of_pixels(query: int, queries: int, first: float = P_INIT) -> float:
    """The share of the image that a square covers: halved at 10, 50, 200, ... of 10,000 queries.

    Andriushchenko et al. 2020, section 4 and their published code; ``query`` counts from 0.
    """
    at = query * _OF / queries
    return first / 2 ** sum(at > limit for limit in _HALVED)


def stripes(x: Tensor, ball: Ball, space: InputSpace, generator: torch.Generator) -> Tensor:
    """The start: vertical stripes at the ball's corners (l2: of equal size), a valid image."""
    sign = 2.0 * torch.randint(0, 2, (*x.shape[:2], 1, x.shape[3]), generator=generator) - 1
    size = ball.radius if isinstance(ball, LInfBall) else ball.radius / x[0].numel() ** 0.5
    return ball.project(x + space.scale(size, x) * sign.to(x), x, space)


def proposals(
    x: Tensor, best: Tensor, side: int, ball: Ball, space: InputSpace, generator: torch.Generator
) -> Tensor:
    """The best images, each with one square of its own at another sign per channel.

    In the L-infinity ball the square goes to a corner of it. In the Euclidean ball its change is
    drawn anew at the size that the whole radius would give it, and all is projected.
    """
    count, channels, height, width = x.shape
    size = ball.radius if isinstance(ball, LInfBall) else ball.radius / side
    sign = 2.0 * torch.randint(0, 2, (count, channels, 1, 1), generator=generator) - 1
    rows = torch.randint(0, height - side + 1, (count,), generator=generator)
    columns = torch.randint(0, width - side + 1, (count,), generator=generator)
    inside = torch.zeros(count, 1, height, width, dtype=torch.bool)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        inside[i, :, row : row + side, column : column + side] = True
    moved = x + space.scale(size, x) * sign.to(x)
    return ball.project(torch.where(inside.to(x.device), moved, best), x, space)


def square(
    x: Tensor,
    score: Callable[[Tensor], Tensor],
    queries: int,
    *,
    ball: Ball,
    space: InputSpace,
    generator: torch.Generator,
) -> Iterator[int]:
    """Square Attack (Andriushchenko et al. 2020) on whatever ``score`` says.

    Args:
        x: the original images, normalised, [B, C, H, W].
        score: of images [B, C, H, W], one number each, [B], lower is better; infinite for images
            that do not count. Called once per query, with all images.
        queries: how many.
        ball: where images stay.
        space: the model's normalisation.
        generator: of all random numbers.

    Yields:
        How many queries are done.
    """
    best = stripes(x, ball, space, generator)
    value = score(best)
    yield 1
    height, width = x.shape[-2:]
    for query in range(1, queries):
        share = share_of_pixels(query, queries)
        side = max(1, min(height, width, round(math.sqrt(share * height * width))))
        tried = proposals(x, best, side, ball, space, generator)
        found = score(tried)
        # A start that does not count is left for anything that is no worse.
        better = (found < value) | (torch.isinf(value) & torch.isinf(found))
        best = torch.where(better.view(-1, 1, 1, 1), tried, best)
        value = torch.where(better, found, value)
        yield query + 1
