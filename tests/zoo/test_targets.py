"""Target maps from a text and from files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trompe.errors import TargetError
from trompe.zoo.targets import map_from_file, text_map

SENTENCE = "this explanation was manipulated"


def assert_is_map(target: Tensor, height: int, width: int) -> None:
    assert target.shape == (height, width)
    assert target.dtype == torch.float32
    assert bool((target >= 0).all())
    assert float(target.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (224, 224), (48, 120), (120, 60)])
@pytest.mark.parametrize("text", [SENTENCE, "hi", "two\nlines", "a b c"])
def test_a_text_is_a_map_that_fills_the_picture(text: str, height: int, width: int) -> None:
    target = text_map(text, height, width)
    assert_is_map(target, height, width)
    rows, columns = (target > 0).nonzero().T
    tall = int(rows.max() - rows.min()) + 1
    wide = int(columns.max() - columns.min()) + 1
    assert max(tall / height, wide / width) > 0.7
    assert abs(float(rows.max() + rows.min()) / 2 - (height - 1) / 2) <= 2
    assert abs(float(columns.max() + columns.min()) / 2 - (width - 1) / 2) <= 2


def test_a_text_has_smooth_edges_and_room_around_it() -> None:
    target = text_map(SENTENCE, 64, 64)
    levels = target / target.max()
    assert bool(((levels > 0.1) & (levels < 0.9)).any())
    frame = torch.cat([target[0], target[-1], target[:, 0], target[:, -1]])
    assert float(frame.sum()) == 0


def test_different_texts_give_different_maps_and_equal_ones_equal() -> None:
    assert torch.equal(text_map("yes", 32, 32), text_map(" yes ", 32, 32))
    assert not torch.equal(text_map("yes", 32, 32), text_map("no", 32, 32))
    assert not torch.equal(text_map("a b", 32, 32), text_map("a\nb", 32, 32))


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="empty"):
        text_map(text, 64, 64)


@pytest.mark.parametrize("text", [SENTENCE * 20, "manipulated" * 9])
def test_a_text_too_long_to_be_read_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="too long"):
        text_map(text, 64, 64)


def test_an_array_is_made_positive_and_normalised(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5))
    np.save(tmp_path / "a.npy", values)
    target = map_from_file(tmp_path / "a.npy", 6, 5)
    assert_is_map(target, 6, 5)
    np.testing.assert_allclose(target, np.abs(values) / np.abs(values).sum(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["bool", "int8", "uint16", "float16", "float64", ">f4"])
def test_arrays_of_every_real_kind_work(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", np.eye(4).astype(kind))
    torch.testing.assert_close(map_from_file(tmp_path / "a.npy", 4, 4), torch.eye(4) / 4)


def test_huge_entries_do_not_overflow(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 4), 1e308))
    torch.testing.assert_close(map_from_file(tmp_path / "a.npy", 4, 4), torch.full((4, 4), 1 / 16))


def test_a_picture_gives_its_luminance(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((1, 0), (255, 255, 255))
    image.putpixel((3, 1), (0, 255, 0))
    image.save(tmp_path / "a.PNG")
    expected = torch.zeros(2, 4)
    expected[0, 1], expected[1, 3] = 255, 150
    target = map_from_file(tmp_path / "a.PNG", 2, 4)
    torch.testing.assert_close(target, expected / expected.sum())


def test_a_sixteen_bit_picture_keeps_its_levels(tmp_path: Path) -> None:
    levels = (np.arange(12, dtype=np.uint16) * 301).reshape(3, 4)
    Image.fromarray(levels).save(tmp_path / "a.png")
    expected = torch.from_numpy(levels.astype(np.float32))
    torch.testing.assert_close(map_from_file(tmp_path / "a.png", 3, 4), expected / expected.sum())


def test_transparent_pixels_are_not_relevant(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    image.putpixel((2, 1), (255, 255, 255, 255))
    image.save(tmp_path / "a.png")
    assert float(map_from_file(tmp_path / "a.png", 4, 4)[1, 2]) == 1


def test_another_size_is_resized_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 6)))
    with caplog.at_level(logging.WARNING):
        map_from_file(tmp_path / "a.npy", 8, 6)
        assert not caplog.records
        assert_is_map(map_from_file(tmp_path / "a.npy", 5, 9), 5, 9)
    assert "6 x 8 to 9 x 5" in caplog.text


def refuse(path: Path, why: str) -> None:
    with pytest.raises(TargetError, match=why) as caught:
        map_from_file(path, 4, 4)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros((4, 4)), "all zero"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), -np.inf), "infinity"),
        (np.ones((1, 4, 4)), "two dimensions"),
        (np.ones(16), "two dimensions"),
        (np.ones((0, 4)), "two dimensions"),
        (np.ones((4, 4), complex), "real numbers"),
        (np.full((4, 4), "a"), "real numbers"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, values: np.ndarray, why: str) -> None:
    np.save(tmp_path / "a.npy", values)
    refuse(tmp_path / "a.npy", why)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"code": "runs"}]]), allow_pickle=True)
    refuse(tmp_path / "a.npy", "plain numbers")


def test_missing_broken_and_foreign_files_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "nothing.npy", "does not exist")
    refuse(tmp_path / "nothing.png", "does not exist")
    refuse(tmp_path / "map.jpg", "neither")
    for name in ("broken.npy", "broken.png"):
        (tmp_path / name).write_bytes(b"\x93NUMPY rubbish")
        refuse(tmp_path / name, "cannot be read|broken")
    np.savez(tmp_path / "zip.npz", np.ones((4, 4)))
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    refuse(tmp_path / "zip.npy", "real numbers")
    Image.new("L", (4, 4)).save(tmp_path / "black.png")
    refuse(tmp_path / "black.png", "all zero")
