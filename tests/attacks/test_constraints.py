"""What every constraint owes the attack: feasible, idempotent, and the nearest valid image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from trompe.attacks import Ball, Constraint, L2Ball, LInfBall, ValidImage, constraints
from trompe.errors import UsageError
from trompe.types import InputSpace

SPACE = InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
BALLS = {"linf": 0.1, "l2": 0.4}
channels = st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 3)), min_size=1, max_size=4)


def made(name: str) -> Constraint:
    """The constraint of a name, with a radius that cuts off what the tests project."""
    kind = constraints[name]
    return kind(BALLS[name]) if issubclass(kind, Ball) else kind()


NAMES = [name for name in constraints.names() if name in BALLS or name == "valid_image"]


def images(seed: int, shape: tuple[int, ...] = (3, 3, 2, 2)) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return SPACE.from_pixels(torch.rand(shape, generator=draw, dtype=torch.float64))


def far(seed: int, origin: Tensor, scale: float = 0.5) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(origin.shape, generator=draw, dtype=torch.float64)
    return origin + SPACE.scale(scale, origin) * noise


def test_every_constraint_is_tested_here() -> None:
    assert set(NAMES) == set(constraints.names())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.01, 0.5, 20.0])
def test_a_projection_is_feasible_idempotent_and_keeps_what_is_allowed(
    name: str, scale: float
) -> None:
    constraint, origin = made(name), images(1)
    x = far(2, origin, scale)
    kept = x.clone()
    found = constraint.project(x, origin, SPACE)
    assert torch.equal(x, kept)
    assert torch.equal(constraint.project(found, origin, SPACE), found)
    assert float(constraint.violation(found, origin, SPACE).max()) == 0
    pixels = SPACE.to_pixels(found)
    assert float(pixels.min()) >= -1e-9
    assert float(pixels.max()) <= 1 + 1e-9
    if isinstance(constraint, Ball):
        assert float(constraint.size(found, origin, SPACE).max()) <= constraint.radius * (1 + 2e-6)
    torch.testing.assert_close(constraint.project(origin, origin, SPACE), origin)
    for i in range(len(x)):
        alone = constraint.project(x[i : i + 1], origin[i : i + 1], SPACE)
        torch.testing.assert_close(alone[0], found[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(BALLS))
@pytest.mark.parametrize("seed", range(4))
def test_a_projection_is_the_solution_of_the_quadratic_program(name: str, seed: int) -> None:
    """By a general solver, on 12 numbers: in pixel units, the nearest point of ball and box."""
    constraint = made(name)
    origin = images(seed, (1, 3, 2, 2))
    x = far(seed + 50, origin)
    p0, p = (SPACE.to_pixels(t).flatten().numpy() for t in (origin, x))
    radius = BALLS[name]
    bounds = [(0.0, 1.0)] * 12
    conditions = []
    if name == "linf":
        bounds = [(max(0, a - radius), min(1, a + radius)) for a in p0]
    else:
        conditions = [{"type": "ineq", "fun": lambda y: radius**2 - ((y - p0) ** 2).sum()}]
    # Distances count in normalised units: every channel by its own standard deviation.
    weight = (1 / torch.tensor(SPACE.std, dtype=torch.float64).repeat_interleave(4)).numpy() ** 2
    solved = minimize(
        lambda y: (weight * (y - p) ** 2).sum() if name == "linf" else ((y - p) ** 2).sum(),
        p0,
        bounds=bounds,
        constraints=conditions,
        options={"maxiter": 500, "ftol": 1e-14},
        method="SLSQP",
    )
    found = SPACE.to_pixels(constraint.project(x, origin, SPACE)).flatten().numpy()
    assert abs(found - solved.x).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_random_start_is_allowed_reproducible_and_no_other_images(name: str) -> None:
    constraint, origin = made(name), images(3)
    first, again, other = (
        constraint.start(origin, SPACE, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(constraint.violation(first, origin, SPACE).max()) <= 1e-12
    assert bool((first != origin).flatten(1).any(dim=1).all())


def test_sizes_are_in_pixel_units() -> None:
    origin = SPACE.from_pixels(torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64))
    change = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    change[0, 0, 0, 0], change[0, 2, 1, 1] = 0.3, -0.4
    x = SPACE.from_pixels(SPACE.to_pixels(origin) + change)
    assert float(LInfBall(1.0).size(x, origin, SPACE)) == pytest.approx(0.4)
    assert float(L2Ball(1.0).size(x, origin, SPACE)) == pytest.approx(0.5)


@settings(max_examples=40, deadline=None)
@given(channels=channels, seed=st.integers(0, 10**6), scale=st.floats(0, 50), single=st.booleans())
def test_valid_image(
    channels: list[tuple[float, float]], seed: int, scale: float, single: bool
) -> None:
    space = InputSpace(tuple(m for m, _ in channels), tuple(s for _, s in channels))
    constraint = ValidImage()
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if single else torch.float64
    x, origin = scale * torch.randn(2, 2, len(channels), 3, 3, generator=generator, dtype=dtype)
    found = constraint.project(x, origin, space)
    assert torch.equal(constraint.project(found, origin, space), found)
    pixels = space.to_pixels(found)
    assert float(pixels.min()) >= -2e-6
    assert float(pixels.max()) <= 1 + 2e-6
    nearest = space.from_pixels(space.to_pixels(x).clamp(0, 1))
    torch.testing.assert_close(found, nearest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", sorted(BALLS))
def test_a_radius_that_is_none_is_refused(name: str, radius: float) -> None:
    with pytest.raises(UsageError, match="radius must be positive"):
        constraints[name](radius)


def test_pixels_there_and_back() -> None:
    space = InputSpace()
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    x = space.from_pixels(pixels)
    torch.testing.assert_close(space.to_pixels(x), pixels)
    torch.testing.assert_close(space.clamp(x), x)
    assert space.low[0] == pytest.approx(-2.1179, abs=1e-4)
    assert max(space.high) == pytest.approx(2.64, abs=1e-4)
    with pytest.raises(UsageError, match="3 channels"):
        space.clamp(torch.zeros(1, 1, 2, 2))
    for mean, std in (((0.5,), (1.0, 1.0)), ((), ()), ((0.5,), (0.0,)), ((0.5,), (float("nan"),))):
        with pytest.raises(UsageError):
            InputSpace(mean, std)
