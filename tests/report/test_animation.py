"""The two animations, read back from what was written."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trompe
from trompe.cli import main
from trompe.errors import OutputError
from trompe.report.animation import save_gif, save_mp4, smoothing_frames, two_layer_values

needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="imageio-ffmpeg is not installed: an MP4 cannot be written",
)
COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (230, 230, 40))


def plain_frames(width: int, height: int) -> list[Image.Image]:
    """One colour each."""
    return [Image.new("RGB", (width, height), colour) for colour in COLOURS]


def read_mp4(path: str | Path) -> tuple[list[np.ndarray], dict[str, object]]:
    imageio = importlib.import_module("imageio.v2")
    with imageio.get_reader(path) as reader:
        # list(reader) would ask for its length, which is infinite.
        return [frame for frame in reader], reader.get_meta_data()


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "A.MP4"])
def test_an_mp4_holds_the_frames(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Neither side is a multiple of 16, and each is odd.
    save_mp4(tmp_path / name, plain_frames(151, 87), seconds=2.0)
    frames, about = read_mp4(tmp_path / name)
    assert len(frames) == len(COLOURS)
    assert about["fps"] == pytest.approx(2.0)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame.shape == (86, 150, 3)
        assert np.abs(frame.mean(axis=(0, 1)) - colour).max() < 6
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert capfd.readouterr() == ("", "")


@needs_ffmpeg
def test_an_mp4_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_mp4(tmp_path / "missing" / "a.mp4", plain_frames(32, 32))


def test_a_gif_holds_the_frames(tmp_path: Path) -> None:
    save_gif(tmp_path / "a.gif", plain_frames(151, 87), seconds=2.0)
    with Image.open(tmp_path / "a.gif") as found:
        assert found.size == (151, 87)
        assert found.n_frames == len(COLOURS)  # type: ignore[attr-defined]
        for number, colour in enumerate(COLOURS):
            found.seek(number)
            assert found.info["duration"] == (1000 if number == 3 else 500)
            shown = np.asarray(found.convert("RGB"), dtype=float)
            assert np.abs(shown.mean(axis=(0, 1)) - colour).max() < 2


@pytest.mark.parametrize("suffix", ["gif", pytest.param("mp4", marks=needs_ffmpeg)])
def test_animate(suffix: str, small: list[str]) -> None:
    options = ["--frames", "3", "--seconds", "2", "--quiet", "--output"]
    assert main(["animate", "smoothing", *options, f"new/a.{suffix}"]) == 0
    attack = ["animate", "attack", *small, "--target-text", "X", "--iterations", "6"]
    assert main([*attack, *options, f"b.{suffix}"]) == 0
    for path, (width, height) in ((f"new/a.{suffix}", (600, 320)), (f"b.{suffix}", (800, 234))):
        if suffix == "mp4":
            frames, about = read_mp4(path)
            assert len(frames) == 3
            assert frames[0].shape == (height, width, 3)
            assert about["duration"] == pytest.approx(2.0, abs=0.1)
        else:
            with Image.open(path) as found:
                assert found.n_frames == 3  # type: ignore[attr-defined]
                assert found.size[0] == width


def test_another_suffix_is_refused(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animate", "smoothing", "--output", "a.txt"]) == 2
    assert ".gif" in capsys.readouterr().err


def _absent(name: str) -> SimpleNamespace:
    raise ImportError(name)


def _without_program(name: str) -> SimpleNamespace:
    def get_ffmpeg_exe() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    return SimpleNamespace(get_ffmpeg_exe=get_ffmpeg_exe)


@pytest.mark.parametrize("missing", [_absent, _without_program])
def test_without_ffmpeg_the_way_out_is_named_before_any_work(
    missing: Callable[[str], SimpleNamespace],
    small: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported = importlib.import_module

    def without(name: str) -> object:
        return missing(name) if name == "imageio_ffmpeg" else imported(name)

    monkeypatch.setattr("trompe.report.animation.importlib.import_module", without)
    monkeypatch.setattr("trompe.manipulate", None)  # to attack would fail
    for kind in (["smoothing"], ["attack", *small]):
        assert main(["animate", *kind, "--output", "out/a.mp4"]) == 2
        message = capsys.readouterr().err
        assert "pip install imageio-ffmpeg" in message
        assert message.count("\n") == 1
    assert not Path("out").exists()


def test_the_frames_show_what_beta_does() -> None:
    frames = [np.asarray(frame, dtype=float) for frame in smoothing_frames(3)]
    assert [frame.shape for frame in frames] == [(320, 600, 3)] * 3
    relu, softplus = (
        [frame[:, half] for frame in frames] for half in (slice(0, 300), slice(300, 600))
    )
    assert (relu[0] == relu[2]).all()
    assert np.abs(softplus[0] - softplus[2]).mean() > 1


def test_the_network_of_figure_24() -> None:
    """Against numpy, written down once more."""
    import torch

    generator = torch.Generator().manual_seed(3)
    first, second = (
        2 * torch.rand(shape, generator=generator, dtype=torch.float64).numpy() - 1
        for shape in ((2, 50), (50,))
    )
    found = two_layer_values(2.0, size=5, seed=3)
    for row, down in enumerate(np.linspace(-1, 1, 5)):
        for column, across in enumerate(np.linspace(-1, 1, 5)):
            hidden = np.array([across, down]) @ first
            value = float(np.log1p(np.exp(2.0 * hidden)) / 2.0 @ second)
            assert math.isclose(found[row, column], value, rel_tol=1e-9, abs_tol=1e-9)
    assert np.abs(two_layer_values(1e4, size=5) - two_layer_values(None, size=5)).max() < 1e-2


def test_an_animated_attack_is_the_attack_itself(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method is the one asked for, not one that notes what it is given."""
    attacks = []
    manipulate = trompe.manipulate

    def watching(*args: Any, **options: Any) -> Any:
        attacks.append((args, options, manipulate(*args, **options)))
        return attacks[-1][2]

    monkeypatch.setattr(trompe, "manipulate", watching)
    command = ["animate", "attack", *small, "--method", "guided_backprop", "--iterations", "6"]
    assert main([*command, "--target-text", "X", "--output", "a.gif", "--quiet"]) == 0
    ((args, options, result),) = attacks
    assert options["explainer"] == trompe.explainer("guided_backprop")
    for name in ("follow", "progress"):
        options[name] = None
    plain = manipulate(*args, **options)
    assert torch.equal(result.x_adv, plain.x_adv)
    assert not torch.equal(plain.x_adv, plain.x)
