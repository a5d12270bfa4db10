"""Random squares: the published schedule, the ball, and what they reach without a derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import trompe
from trompe.attacks import L2Ball, LInfBall
from trompe.robustness.square import proposals, share_of_pixels, square, stripes

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
BALLS = (LInfBall(0.05), L2Ball(0.5))


def images() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return SPACE.from_pixels(0.1 + 0.8 * torch.rand(2, 3, 8, 8, generator=draw))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_schedule_is_the_published_one() -> None:
    # p_selection of the published code, with 10,000 queries.
    expected = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 501: 16, 1001: 32, 2001: 64}
    for query, divisor in expected.items():
        assert share_of_pixels(query, 10_000) == 0.8 / divisor
    assert share_of_pixels(9_999, 10_000) == 0.8 / 512
    assert share_of_pixels(51, 5_000) == share_of_pixels(102, 10_000)


@pytest.mark.parametrize("ball", BALLS)
def test_everything_tried_is_a_valid_image_of_the_ball(ball: LInfBall | L2Ball) -> None:
    x, seen = images(), []

    def score(tried: Tensor) -> Tensor:
        seen.append(tried)
        return tried.flatten(1).sum(dim=1)

    done = list(square(x, score, 60, ball=ball, space=SPACE, generator=generator()))
    assert done == list(range(1, 61))
    assert len(seen) == 60
    for tried in seen:
        assert float(ball.violation(tried, x, SPACE).max()) < 1e-6
        assert float(ball.size(tried, x, SPACE).max()) <= ball.radius * (1 + 1e-5)


def test_a_proposal_changes_one_square() -> None:
    x = images()
    best = stripes(x, BALLS[0], SPACE, generator())
    tried = proposals(x, best, 3, BALLS[0], SPACE, generator())
    for now, before in zip(tried, best, strict=True):
        rows, columns = (now != before).any(dim=0).nonzero().unbind(dim=1)
        assert int(rows.max() - rows.min()) < 3
        assert int(columns.max() - columns.min()) < 3
    change = (tried - x) / SPACE.scale(1.0, x)
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.05))


def test_it_finds_the_corner_of_a_linear_score() -> None:
    x = images()
    weight = torch.randn(3, 8, 8, generator=generator())
    corner = (SPACE.scale(0.05, x)[0].expand_as(weight) * weight).abs().sum()
    origin = (x * weight).flatten(1).sum(dim=1)
    low = [torch.full((2,), torch.inf)]

    def score(tried: Tensor) -> Tensor:
        value = (tried * weight).flatten(1).sum(dim=1)
        low[0] = torch.minimum(low[0], value)
        return value

    list(square(x, score, 1500, ball=BALLS[0], space=SPACE, generator=generator()))
    assert float(((origin - low[0]) / corner).min()) > 0.75


def test_it_leaves_a_start_that_does_not_count() -> None:
    x, calls = images(), [0]

    def score(tried: Tensor) -> Tensor:
        calls[0] += 1
        value = tried.flatten(1).sum(dim=1)
        return value if calls[0] > 5 else torch.full_like(value, torch.inf)

    seen: list[int] = list(square(x, score, 10, ball=BALLS[0], space=SPACE, generator=generator()))
    assert len(seen) == calls[0] == 10
