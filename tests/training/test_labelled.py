"""Labelled images from folders and archives, in batches that a seed repeats."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trompe
from trompe.errors import UsageError
from trompe.training import read_labelled


@pytest.fixture(scope="module")
def loaded() -> trompe.LoadedModel:
    return trompe.load_model("tiny-vgg", "random")


def picture(shade: int) -> Image.Image:
    pixels = np.full((40, 40, 3), shade, dtype=np.uint8)
    pixels[:, :20] //= 2
    return Image.fromarray(pixels)


def folder(path: Path, names: tuple[str, ...]) -> Path:
    for number, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for index in range(3):
            picture((60 * (number + 1)) % 250 + index).save(path / name / f"{index}.png")
    return path


def test_folders_are_classes_in_order(tmp_path: Path, loaded: trompe.LoadedModel) -> None:
    found = read_labelled(folder(tmp_path, ("a", "b")), loaded, batch_size=4, seed=None)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(found) == 2
    (x, y), (rest, _) = list(found)
    assert x.shape[0] == 4
    assert rest.shape[0] == 2
    assert y.tolist() == [0, 0, 0, 1]
    pixels = loaded.input_space.to_pixels(x)
    assert float(pixels[0, 0, 32, 60]) == pytest.approx(60 / 255, abs=0.01)


def test_folders_named_as_the_models_classes_are_those(
    tmp_path: Path, loaded: trompe.LoadedModel
) -> None:
    names = (loaded.classes[7], loaded.classes[3])
    found = read_labelled(folder(tmp_path, names), loaded)
    assert sorted(set(found.labels.tolist())) == [3, 7]


def test_an_epoch_repeats_and_differs_from_the_next(
    tmp_path: Path, loaded: trompe.LoadedModel
) -> None:
    found = read_labelled(folder(tmp_path, ("a", "b", "c")), loaded, batch_size=3, seed=4)

    def shades(number: int) -> list[float]:
        return [float(v) for x, _ in found.epoch(number) for v in x.flatten(1).sum(1)]

    assert shades(1) == shades(1)
    assert shades(1) != shades(2)
    assert sorted(y for _, ys in found.epoch(1) for y in ys.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_an_archive_and_a_part_of_it(tmp_path: Path, loaded: trompe.LoadedModel) -> None:
    stream, offsets = io.BytesIO(), [0]
    for shade in range(10):
        picture(20 * shade).save(stream, "JPEG")
        offsets.append(stream.tell())
    jpeg = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, jpeg=jpeg, offsets=np.array(offsets), label=np.arange(10))
    assert read_labelled(path, loaded).labels.tolist() == list(range(10))
    assert read_labelled(path, loaded, most=5).labels.tolist() == [0, 2, 4, 6, 8]
    assert read_labelled(path, loaded).part([3, 1], seed=None).labels.tolist() == [3, 1]
    np.savez(path, jpeg=jpeg, offsets=np.array(offsets), label=np.arange(45, 55))
    with pytest.raises(UsageError, match="class 54"):
        read_labelled(path, loaded)


def test_classes_that_a_model_without_labels_does_not_have(
    tmp_path: Path, loaded: trompe.LoadedModel
) -> None:
    bare = replace(loaded, classes=())
    names = tuple(f"{number:02d}" for number in range(51))
    with pytest.raises(UsageError, match="has class 50, the model 50 classes"):
        read_labelled(folder(tmp_path, names), bare)


def test_what_is_no_folder_is_refused(tmp_path: Path, loaded: trompe.LoadedModel) -> None:
    with pytest.raises(UsageError, match="class folders"):
        read_labelled(tmp_path / "nothing", loaded)
    with pytest.raises(UsageError, match="no labelled images"):
        read_labelled(tmp_path, loaded)
    assert torch.is_grad_enabled()
