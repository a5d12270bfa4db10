"""``--tangents``: the tangent-space projection by name, for explain and robustness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trompe
from trompe.cli.tangents import along_tangents
from trompe.explain.tangent_projection import TangentProjection
from trompe.zoo.images import load_image

COUNT = 34


@pytest.fixture
def photos(folder: Path) -> Path:
    (folder / "near").mkdir()
    draw = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "near" / f"{index:02}.png")
    return folder / "near"


def test_the_map_is_that_of_the_projection_on_these_images(photos: Path) -> None:
    loaded = trompe.load_model("tiny-vgg")
    read = [load_image(str(path), how=loaded.preprocessing) for path in sorted(photos.iterdir())]
    data = loaded.input_space.from_pixels(torch.stack(read))
    x, target = data[:2] * 0.9, torch.tensor([3, 4])
    gradient = trompe.explainer("gradient")
    found = along_tangents(str(photos), loaded)(gradient)(loaded.model, x, target)
    torch.testing.assert_close(found, TangentProjection(data)(loaded.model, x, target))
    assert along_tangents(None, loaded)(gradient) is gradient
    inside = TangentProjection(data).tangents(x)
    flat = found.flatten(1)[:, :, None]
    torch.testing.assert_close(inside @ (inside.mT @ flat), flat, atol=1e-5, rtol=1e-4)


def test_explain_and_robustness_take_it_and_say_so(run: Callable, photos: Path) -> None:
    near = ("--model", "tiny-vgg", "--tangents", photos, "--quiet", "--json")
    one = photos / "00.png"
    code, out, err = run("explain", one, *near, "--method", "gradient", "--beta", "10")
    assert code == 0, err
    assert json.loads(out)["run"]["tangents"] == str(photos)
    code, out, err = run("robustness", one, *near, "--budget", "0.01", "--radius", "1/255")
    assert code in (0, 3, 4), err
    assert json.loads(out)["run"]["tangents"] == str(photos)


def test_too_few_images_are_refused(refused: Callable, photos: Path) -> None:
    for path in sorted(photos.iterdir())[31:]:
        path.unlink()
    said = refused("explain", photos / "00.png", "--model", "tiny-vgg", "--tangents", photos)
    assert "32 nearest images" in said
    assert "holds 31" in said
