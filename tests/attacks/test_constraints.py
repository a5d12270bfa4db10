"""What every constraint owes the attack: feasible, idempotent, and the nearest valid image."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from trompe.attacks import Ball, Constraint, L2Ball, LInfBall, ValidImage, constraints
from trompe.attacks.constraints import L1Ball, LowFrequency, Mask, Patch, Sparse
from trompe.errors import UsageError
from trompe.types import InputSpace

SPACE = InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
BALLS = {"linf": 0.1, "l2": 0.4, "l1": 0.9}
OTHERS: dict[str, dict[str, Any]] = {
    "valid_image": {},
    "sparse": {"share": 0.5, "radius": 0.7},
    "mask": {"mask": torch.tensor([[0, 1], [1, 1]]), "radius": 0.7},
    "patch": {"box": (0.0, 0.0, 0.6, 1.0)},
    "low_frequency": {"share": 0.5, "radius": 0.1},
}
channels = st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 3)), min_size=1, max_size=4)


def made(name: str) -> Constraint:
    """The constraint of a name, with a radius that cuts off what the tests project."""
    kind = constraints[name]
    return kind(BALLS[name]) if issubclass(kind, Ball) else kind(**OTHERS[name])


NAMES = [name for name in constraints.names() if name in BALLS or name in OTHERS]


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


def solved_by_slsqp(
    wanted: np.ndarray,
    start: np.ndarray,
    bounds: list[tuple[float, float]],
    conditions: list[dict[str, Any]],
    weight: np.ndarray | float = 1.0,
) -> np.ndarray:
    """The nearest point of a box under conditions, by a general solver."""
    found = minimize(
        lambda y: (weight * (y - wanted) ** 2).sum(),
        start,
        bounds=bounds,
        constraints=conditions,
        options={"maxiter": 500, "ftol": 1e-14},
        method="SLSQP",
    )
    return found.x


@pytest.mark.parametrize("name", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_a_projection_is_the_solution_of_the_quadratic_program(name: str, seed: int) -> None:
    """By a general solver, on 12 numbers: in pixel units, the nearest point of ball and box."""
    constraint = made(name)
    origin = images(seed, (1, 3, 2, 2))
    x = far(seed + 50, origin)
    p0, p = (SPACE.to_pixels(t).flatten().numpy() for t in (origin, x))
    radius = BALLS[name]
    bounds, conditions, weight = [(0.0, 1.0)] * 12, [], 1.0
    if name == "linf":
        bounds = [(max(0, a - radius), min(1, a + radius)) for a in p0]
        # Whatever the weight of a channel: the box has no say between them.
        std = torch.tensor(SPACE.std, dtype=torch.float64)
        weight = (1 / std.repeat_interleave(4)).numpy() ** 2
    else:
        conditions = [{"type": "ineq", "fun": lambda y: radius**2 - ((y - p0) ** 2).sum()}]
    expected = solved_by_slsqp(p, p0, bounds, conditions, weight)
    found = SPACE.to_pixels(constraint.project(x, origin, SPACE)).flatten().numpy()
    assert abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_l1_projection_is_the_solution_of_the_quadratic_program(
    seed: int, scale: float
) -> None:
    """The change as a difference of two numbers, 0 or more, which makes its size linear."""
    origin = images(seed, (1, 3, 2, 2))
    x = far(seed + 50, origin, scale)
    p0, p = (SPACE.to_pixels(t).flatten().numpy() for t in (origin, x))
    solved = minimize(
        lambda y: ((p0 + y[:12] - y[12:] - p) ** 2).sum(),
        np.zeros(24),
        bounds=[(0, 1 - a) for a in p0] + [(0, a) for a in p0],
        constraints=[{"type": "ineq", "fun": lambda y: BALLS["l1"] - y.sum()}],
        options={"maxiter": 1000, "ftol": 1e-15},
        method="SLSQP",
    )
    expected = p0 + solved.x[:12] - solved.x[12:]
    found = SPACE.to_pixels(made("l1").project(x, origin, SPACE)).flatten().numpy()
    assert abs(found - expected).max() < 1e-5
    if scale > 0.1:  # the ball binds, not the box alone
        assert abs(np.abs(found - p0).sum() - BALLS["l1"]) < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_the_sparse_projection_beats_every_choice_of_pixels(seed: int) -> None:
    origin = images(seed, (1, 3, 3, 3))
    x = far(seed + 50, origin, 0.8)
    constraint = Sparse(share=0.34, radius=0.6)  # 3 of 9 pixels
    p0, p = (SPACE.to_pixels(t)[0].flatten(1) for t in (origin, x))
    changed = p.clamp(p0 - 0.6, p0 + 0.6).clamp(0, 1)
    costs = {}
    for pixels in itertools.combinations(range(9), 3):
        image = p0.clone()
        image[:, pixels] = changed[:, pixels]
        costs[pixels] = float((image - p).square().sum())
    best = min(costs, key=lambda pixels: costs[pixels])
    found = constraint.project(x, origin, SPACE)
    expected = p0.clone()
    expected[:, best] = changed[:, best]
    torch.testing.assert_close(SPACE.to_pixels(found)[0].flatten(1), expected)
    assert float(constraint.size(found, origin, SPACE)) == pytest.approx(3 / 9)
    # The largest change wanted is not always what counts: it may lie outside the valid images.
    assert float(constraint.size(origin, origin, SPACE)) == 0


@pytest.mark.parametrize("scale", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_low_frequency_projection_is_the_solution_of_the_quadratic_program(
    seed: int, scale: float
) -> None:
    """By a general solver, on one channel of 3 x 4 pixels, whose DCT is scipy's."""
    space = InputSpace((0.4,), (0.3,))
    draw = torch.Generator().manual_seed(seed)
    origin = space.from_pixels(torch.rand(1, 1, 3, 4, generator=draw, dtype=torch.float64))
    noise = torch.randn(origin.shape, generator=draw, dtype=torch.float64)
    x = origin + space.scale(scale, origin) * noise
    constraint = LowFrequency(share=0.67, radius=0.15, tolerance=1e-7)  # 2 x 2 coefficients
    p0, p = (space.to_pixels(t).flatten().numpy() for t in (origin, x))
    high = np.ones((3, 4), dtype=bool)
    high[:2, :2] = False

    def above(y: np.ndarray) -> np.ndarray:
        return scipy.fft.dctn((y - p0).reshape(3, 4), norm="ortho")[high]

    bounds = [(max(0, a - 0.15), min(1, a + 0.15)) for a in p0]
    expected = solved_by_slsqp(p, p0, bounds, [{"type": "eq", "fun": above}])
    found = space.to_pixels(constraint.project(x, origin, space)).flatten().numpy()
    assert abs(above(found)).max() < 1e-6
    assert abs(found - expected).max() < 1e-4


def test_low_frequencies_of_a_picture_are_scipys() -> None:
    delta = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double()
    for share, rows, columns in ((0.125, 2, 3), (0.5, 8, 12), (1.0, 16, 24), (0.01, 1, 1)):
        coefficients = scipy.fft.dctn(delta.numpy(), axes=(2, 3), norm="ortho")
        coefficients[:, :, rows:] = 0
        coefficients[:, :, :, columns:] = 0
        expected = scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho")
        found = LowFrequency(share=share).low(delta)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_a_black_and_white_picture_still_changes_at_low_frequencies() -> None:
    """Where pixels are black or white already, the change wanted must be possible elsewhere."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, 32, 32, generator=draw, dtype=torch.float64)
    pixels[:, :, :10] = 0.0
    origin = SPACE.from_pixels(pixels)
    x = far(5, origin, 0.3)
    constraint = LowFrequency(share=0.125, radius=8 / 255)
    found = constraint.project(x, origin, SPACE)
    assert float(constraint.size(found, origin, SPACE)) > 4 / 255
    assert torch.equal(constraint.project(found, origin, SPACE), found)
    delta = (found - origin) / SPACE.scale(1.0, origin)
    assert float((delta - constraint.low(delta)).abs().max()) <= 0.25 / 255


def test_masks_and_patches() -> None:
    origin = images(1, (2, 3, 10, 20))
    x = far(2, origin)
    mask = torch.zeros(10, 20)
    mask[2:5, 7:9] = 1
    found = Mask(mask).project(x, origin, SPACE)
    assert torch.equal(found[..., mask == 0], origin[..., mask == 0])
    assert torch.equal(found[..., 2:5, 7:9], SPACE.clamp(x)[..., 2:5, 7:9])
    patch = Patch((0.5, 0.1, 0.8, 0.5)).project(x, origin, SPACE)
    changed = (patch != origin).any(dim=1)
    assert bool(changed[:, 5:8, 2:10].all())
    assert int(changed.sum()) == 2 * 3 * 8
    area = Patch().region(images(1, (1, 3, 100, 100))).double().mean()
    assert float(area) == pytest.approx(0.08, abs=0.003)
    for make, message in (
        (lambda: Mask(torch.zeros(4, 4)), "true somewhere"),
        (lambda: Mask(mask).project(x[..., :9], origin[..., :9], SPACE), "resize it first"),
        (lambda: Patch((0.5, 0.1, 0.4, 0.5)), "the box"),
        (lambda: Patch(radius=2.0), "radius"),
        (lambda: Sparse(share=0.0), "share"),
        (lambda: LowFrequency(radius=0.0), "radius"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


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


def test_a_random_start_fills_its_ball() -> None:
    """From mid-grey no pixel meets its border: uniform in the box, on the sphere's surface."""
    origin = SPACE.from_pixels(torch.full((2, 3, 20, 20), 0.5, dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    change = SPACE.to_pixels(LInfBall(0.1).start(origin, SPACE, draw)) - 0.5
    assert 0.099 < float(change.abs().max()) <= 0.1 + 1e-9
    assert float(change.mean()) == pytest.approx(0, abs=0.005)
    assert float(change.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.03)  # of a uniform one
    change = SPACE.to_pixels(L2Ball(0.4).start(origin, SPACE, draw)) - 0.5
    torch.testing.assert_close(change.flatten(1).norm(dim=1), torch.tensor([0.4, 0.4]).double())
    assert float(change.mean()) == pytest.approx(0, abs=0.002)


def test_sizes_are_in_pixel_units() -> None:
    origin = SPACE.from_pixels(torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64))
    change = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    change[0, 0, 0, 0], change[0, 2, 1, 1] = 0.3, -0.4
    x = SPACE.from_pixels(SPACE.to_pixels(origin) + change)
    assert float(LInfBall(1.0).size(x, origin, SPACE)) == pytest.approx(0.4)
    assert float(L2Ball(1.0).size(x, origin, SPACE)) == pytest.approx(0.5)
    assert float(L1Ball(1.0).size(x, origin, SPACE)) == pytest.approx(0.7)
    assert float(Sparse().size(x, origin, SPACE)) == pytest.approx(2 / 4)


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
