"""Models of one channel, and of many, on the command line."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trompe
from trompe.audit import open_run
from trompe.audit.command import command_of
from trompe.cli import main
from trompe.errors import UsageError
from trompe.zoo.spec import ModelSpec

CODE = """
import torch
from torch import nn
def make(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(128, 10))
def grey():
    return make(1)
def colour():
    return make(3)
def five():
    return make(5)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many_channels.py").write_text(CODE)
    return tmp_path


def model(name: str) -> list[str]:
    return ["--model", f"many_channels:{name}", "--size", "28"]


@pytest.mark.parametrize(
    ("name", "numbers", "mean"),
    [
        ("grey", [], (0.0,)),
        ("grey", ["--mean", "0.1307", "--std", "0.3081"], (0.1307,)),
        ("grey", ["--mean", ".13", ".13", ".13", "--std", ".3", ".3", ".3"], (0.13,)),
        ("colour", [], trompe.InputSpace().mean),
        ("colour", ["--mean", "0.5", "--std", "0.25"], (0.5,) * 3),
        ("colour", ["--mean=0.5", "--std", "0.2", "0.3", "0.4"], (0.5,) * 3),
        ("colour", ["--mean", "-0.5", "0.1", "0.2", "--std", "1"], (-0.5, 0.1, 0.2)),
    ],
)
def test_as_many_numbers_as_channels(
    folder: Path,
    name: str,
    numbers: list[str],
    mean: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[trompe.InputSpace] = []
    load = ModelSpec.load

    def noted(self: ModelSpec, device: str) -> trompe.LoadedModel:
        loaded = load(self, device)
        seen.append(loaded.input_space)
        return loaded

    monkeypatch.setattr(ModelSpec, "load", noted)
    assert main(["explain", *model(name), *numbers, "cat", "--method", "gradient", "--quiet"]) == 0
    assert seen[0].mean == mean
    assert len(seen[0].std) == len(mean)


def test_a_grey_model_is_attacked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", *model("grey"), "--iterations", "3", "--json", "--output", "out"]) == 0
    json.loads(capsys.readouterr().out)
    assert list(Path("out").rglob("*.png"))


def test_that_images_become_grey_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trompe"):
        loaded = trompe.load_model("many_channels:grey", size=28)
    assert "takes 1 channel: images are converted to grey" in caplog.text
    assert loaded.preprocessing.channels == 1
    caplog.clear()
    trompe.load_model("many_channels:grey", size=28, mean=(0.1,), std=(0.3,))
    trompe.load_model("many_channels:colour", size=28)
    assert "converted" not in caplog.text


def test_many_channels_come_from_arrays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("bands.npy", torch.rand(5, 28, 28).numpy())
    assert main(["curvature", *model("five"), "bands.npy", "-k", "1", "--beta", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]
    Image.new("RGB", (40, 40)).save("photo.png")
    assert main(["curvature", *model("five"), "photo.png", "--quiet"]) == 2
    assert "5 channels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "numbers",
    [{"mean": (0.1, 0.2)}, {"std": (0.1, 0.2)}, {"mean": (0.1, 0.2, 0.3)}],
)
def test_other_numbers_are_refused(folder: Path, numbers: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UsageError, match="the model takes 1 channel: give one each"):
        trompe.load_model("many_channels:grey", size=28, **numbers)  # type: ignore[arg-type]


def test_two_equal_numbers_are_not_one_each_for_three_channels(folder: Path) -> None:
    with pytest.raises(UsageError, match="mean has 2 numbers, the model takes 3 channels"):
        trompe.load_model("many_channels:colour", size=28, mean=(0.5, 0.5))


def test_a_word_is_no_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *model("grey"), "--mean", "dark"]) == 2
    assert "no number" in capsys.readouterr().err


@pytest.mark.parametrize("numbers", [["0.1307"], [".13", ".13", ".13"]])
def test_an_audit_takes_as_many_numbers_as_channels(folder: Path, numbers: list[str]) -> None:
    how = ["--mean", *numbers, "--std", "0.3", "--iterations", "1", "--pairs", "1", "--quiet"]
    command = ["audit", *model("grey"), *how, "--no-worst-case", "--output", "run"]
    assert main(command) == 0
    run = open_run("run")
    assert run.facts("many_channels:grey")["mean"] == [float(numbers[0])]
    assert main([*shlex.split(command_of(run.settings, "run"))[1:], "--quiet"]) == 0
