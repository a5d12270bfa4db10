"""Steps along a family of transformations: identity, derivatives, bounds, attacks."""

from __future__ import annotations

import dataclasses

import nets
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

import trompe
from trompe.attacks import Unlike, ValidImage
from trompe.attacks.steps import Recolour, Spatial, Transform
from trompe.errors import UsageError
from trompe.types import InputSpace

SPACE = InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
PIXELS = torch.rand(2, 3, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = SPACE.from_pixels(PIXELS)
EACH: dict[str, Transform] = {"spatial": Spatial(0.08, cells=4), "recolour": Recolour(points=5)}
each = pytest.mark.parametrize("name", sorted(EACH))


def parameters(name: str, seed: int = 1) -> Tensor:
    transform = EACH[name]
    draw = torch.rand(
        transform.identity(X).shape, generator=torch.Generator().manual_seed(seed)
    ).double()
    return transform.bound * (2 * draw - 1)


@each
def test_no_transformation_is_the_image_itself(name: str) -> None:
    transform = EACH[name]
    torch.testing.assert_close(transform.image(transform.identity(X), X, SPACE), X)


@each
def test_transformed_images_are_valid_and_each_by_itself(name: str) -> None:
    transform, theta = EACH[name], parameters(name)
    found = transform.image(theta, X, SPACE)
    pixels = SPACE.to_pixels(found)
    assert float(pixels.min()) >= -1e-9
    assert float(pixels.max()) <= 1 + 1e-9
    assert float((pixels - PIXELS).abs().max()) > 0.02
    torch.testing.assert_close(transform.image(theta[1:], X[1:], SPACE)[0], found[1])


@each
def test_the_derivative_towards_the_parameters(name: str) -> None:
    transform = EACH[name]
    theta = (0.9 * parameters(name)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: transform.image(t, X, SPACE), theta, atol=1e-4)


def test_a_flow_of_whole_pixels_moves_them() -> None:
    theta = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    theta[:, 0], theta[:, 1] = 2 / 15, 1 / 12  # each takes the colour two to the right, one down
    found = SPACE.to_pixels(Spatial(cells=4).image(theta, X, SPACE))
    torch.testing.assert_close(found[:, :, :-1, :-2], PIXELS[:, :, 1:, 2:])


def test_a_flow_is_scipys_interpolation() -> None:
    theta = parameters("spatial")
    found = SPACE.to_pixels(EACH["spatial"].image(theta, X, SPACE))
    rows, columns = np.meshgrid(np.arange(12), np.arange(15), indexing="ij")
    for i in range(2):
        grid = [rows * 3 / 11, columns * 3 / 14]  # the places on the grid of 4 x 4 points
        right, down = (
            scipy.ndimage.map_coordinates(theta[i, j].numpy(), grid, order=1) for j in range(2)
        )
        places = [rows + 12 * down, columns + 15 * right]
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(
                PIXELS[i, channel].numpy(), places, order=1, mode="nearest"
            )
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-9)


def test_colours_change_by_the_table() -> None:
    theta = parameters("recolour")
    found = SPACE.to_pixels(EACH["recolour"].image(theta, X, SPACE))
    for i in range(2):
        red, green, blue = (4 * PIXELS[i, j].numpy() for j in range(3))
        for channel in range(3):
            change = scipy.ndimage.map_coordinates(
                theta[i, channel].numpy(), [blue, green, red], order=1
            )
            expected = np.clip(PIXELS[i, channel].numpy() + change, 0, 1)
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-9)
    same = torch.full((1, 3, 4, 4), 0.3, dtype=torch.float64)  # one colour stays one colour
    changed = EACH["recolour"].image(theta[:1], SPACE.from_pixels(same), SPACE)
    assert float(changed.flatten(2).std(dim=2).max()) < 1e-12


@each
def test_steps_go_downhill_within_the_bound(name: str) -> None:
    """Towards an image that a transformation within the bound makes, and no further."""
    transform = EACH[name]
    aim = transform.image(parameters(name, 3), X, SPACE)
    stepper, x = transform.begin(X, SPACE), X.clone()
    first = float((x - aim).square().mean())
    with torch.no_grad():
        for iteration in range(100):
            stepper.step(x, x - aim, iteration, 100)
    assert float((x - aim).square().mean()) < 0.25 * first
    assert float(stepper.theta.abs().max()) <= transform.bound
    torch.testing.assert_close(x, transform.image(stepper.theta, X, SPACE))


@each
def test_an_attack_by_a_transformation_moves_the_map(name: str) -> None:
    x = 0.6 * nets.images(2, dtype=torch.float32)
    settings = nets.one_beta(
        iterations=60,
        closeness=0.0,
        constraint=ValidImage(),
        step=dataclasses.replace(EACH[name], bound=0.15),
    )
    result = trompe.manipulate(
        nets.plain(), x, objective=Unlike(), preset=settings, keep_output="class"
    )
    assert bool(result.success.all())
    similarity = trompe.metrics.pcc(result.map_original, result.map_adv)
    assert float(similarity.mean()) < 0.9


def test_what_does_not_fit_is_refused() -> None:
    for make, message in (
        (lambda: Spatial(bound=0.0), "bound"),
        (lambda: Spatial(cells=1), "cells"),
        (lambda: Recolour(points=1), "points"),
        (lambda: Recolour(size=-1.0), "size"),
        (lambda: Recolour().begin(X[:, :1], SPACE), "3 channels"),
    ):
        with pytest.raises(UsageError, match=message):
            make()
