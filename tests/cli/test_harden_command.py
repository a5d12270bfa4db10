"""``trompe harden``: weights, a card, before and after, and the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trompe import atomic
from trompe.cli import main
from trompe.cli.harden import summary
from trompe.defences import Measured
from trompe.errors import ExplanationError, OutputError
from trompe.robustness import share


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(2):
        (path / f"class {number}").mkdir()
        for index in range(10):
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            pixels[..., number] = 200
            Image.fromarray(pixels).save(path / f"class {number}" / f"{index}.png")
    return path


def command(photos: Path, output: Path, *more: str) -> list[str]:
    given = ["harden", "--data", str(photos), "--model", "tiny-vgg", "--epochs", "1"]
    given += ["--defence", "lga:beta=5", "--attacked", "2", "--budget", "0.01", "--quiet"]
    return [*given, "--output", str(output), *more]


def test_it_leaves_weights_and_a_card(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(photos, tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    card = json.loads((tmp_path / "card.json").read_text())
    assert printed == card
    assert card["defence"] == "lga"
    assert card["options"]["beta"] == 5
    assert card["trained_on"]["images"] == 18
    assert card["held_out"] == 2
    assert card["before"]["images"] == card["after"]["images"] == 2
    assert "softplus of beta 5" in (tmp_path / "card.md").read_text()
    weights = tmp_path / "model.safetensors"
    assert load_file(weights)
    assert main([*command(photos, tmp_path), "--json"]) == 0  # goes on, and is ready at once
    again = json.loads(capsys.readouterr().out)
    assert again["history"] == card["history"]
    use = ["--model", "tiny-vgg", "--weights", str(weights), "--quiet", "--json"]
    assert main(["certify", *use]) == 0
    assert json.loads(capsys.readouterr().out)["class"] is not None
    for changed, named in (
        (["--rate", "1e-5"], "rate was 0.0003, is 1e-05"),
        (["--limit", "10"], "images, count was 18, is 9; other images, content"),
        (["--batch-size", "6"], "images, batch size was 32, is 6"),
    ):
        assert main([*command(photos, tmp_path), *changed]) == 2
        said = capsys.readouterr().err
        assert "another model or other settings" in said
        assert named in said


def test_a_training_that_fails_leaves_nothing_that_refuses_the_corrected_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ExplanationError("the map is not finite")

    monkeypatch.setattr("trompe.tampering.judge", failing)
    fooled = ["fool", "--data", str(photos), "--model", "tiny-vgg", "--epochs", "1", "--quiet"]
    assert main([*fooled, "--output", str(tmp_path / "fool")]) == 2
    assert not (tmp_path / "fool").exists()
    monkeypatch.setattr(atomic, "atomic_path", full)
    hardened = command(photos, tmp_path / "harden")
    assert main(hardened) == 2  # nothing is wrong with the settings: what was trained stays
    assert [path.name for path in (tmp_path / "harden").iterdir()] == ["training.safetensors"]


def full(path: Path) -> None:
    raise OutputError(f"cannot write '{path}': No space left on device")


KILLED = """
import os, signal, sys
import torch
from trompe import atomic
from trompe.cli import main

steps, step = [], torch.optim.AdamW.step

def counted(self, *given, **more):
    steps.append(0)
    if len(steps) == 8:  # in the second of three epochs of five steps
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *given, **more)

torch.optim.AdamW.step = counted
torch.set_num_threads(1)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_to_bitwise_the_same_weights(
    photos: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    more = ["--epochs", "3", "--batch-size", "4"]
    broken = command(photos, tmp_path / "broken", *more)
    script = [sys.executable, "-c", KILLED, *broken]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "broken").iterdir()) == ["training.safetensors"]
    torch.set_num_threads(1)
    try:
        assert main(broken) == 0
        assert main(command(photos, tmp_path / "whole", *more)) == 0
    finally:
        torch.set_num_threads(threads)
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("broken", "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    cards = [json.loads((tmp_path / n / "card.json").read_text()) for n in ("broken", "whole")]
    losses = [[epoch["loss"] for epoch in card["history"]] for card in cards]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--defence", "magic"], "magic"),
        (["--defence", "lga:magic=1"], "no option 'magic'"),
        (["--defence", "lga:cosine=much"], "cosine cannot be"),
        (["--rate", "0"], "--rate"),
        (["--data", "nowhere"], "nowhere"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    photos: Path, tmp_path: Path, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(photos, tmp_path / "new"), *wrong]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def measured(robust: int, right: int) -> Measured:
    return Measured(
        accuracy=share(right, 100), robust=share(robust, 100), worst_pcc=0.5, insertion=0.5,
        deletion=0.1, entropy=0.9, images=100, radius=2 / 255, norm="linf", tau=0.5,
    )  # fmt: skip


def test_the_verdict_follows_from_the_intervals() -> None:
    assert summary(measured(20, 60), measured(60, 60))[-1].startswith("More explanations")
    assert summary(measured(60, 60), measured(20, 60))[-1].startswith("FEWER")
    assert "no gain is shown" in summary(measured(20, 60), measured(24, 60))[-1]
    assert "fell by 10.0 points" in summary(measured(20, 60), measured(60, 50))[-1]
    assert torch.get_num_threads() >= 1


def test_held_out_images_that_are_trained_on_are_refused(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(photos, tmp_path / "out", "--held-out", str(photos))) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "20 of 20 held-out images are trained on, too" in line
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_trained_is_refused_before_anything_is_measured(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trompe.defences.measure", None)
    assert main(command(photos, tmp_path / "out", "--outputs", "value")) == 2
    assert "training is for models of two or more classes" in capfd.readouterr().err
