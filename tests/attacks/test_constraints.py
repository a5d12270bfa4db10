"""Projections are feasible, idempotent, and the nearest point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trompe.attacks.constraints import ValidImage, constraints
from trompe.errors import UsageError
from trompe.types import InputSpace

channels = st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 3)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(channels=channels, seed=st.integers(0, 10**6), scale=st.floats(0, 50), single=st.booleans())
def test_valid_image(
    channels: list[tuple[float, float]], seed: int, scale: float, single: bool
) -> None:
    space = InputSpace(tuple(m for m, _ in channels), tuple(s for _, s in channels))
    constraint = ValidImage(space)
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if single else torch.float64
    x, origin = scale * torch.randn(2, 2, len(channels), 3, 3, generator=generator, dtype=dtype)
    kept = x.clone()
    found = constraint.project(x, origin)
    assert torch.equal(x, kept)
    assert torch.equal(constraint.project(found, origin), found)
    assert float(constraint.violation(found, origin).max()) == 0
    pixels = space.to_pixels(found)
    assert float(pixels.min()) >= -2e-6
    assert float(pixels.max()) <= 1 + 2e-6
    nearest = space.from_pixels(space.to_pixels(x).clamp(0, 1))
    torch.testing.assert_close(found, nearest, rtol=1e-4, atol=1e-4)
    distance = (x - found).abs().flatten(1).amax(dim=1)
    torch.testing.assert_close(constraint.violation(x, origin), distance)


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


def test_they_are_found_by_name() -> None:
    assert constraints["valid_image"] is ValidImage
