"""``trompe fool`` and ``trompe compare``: one makes models that lie, the other finds them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trompe.cli import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    (path / "all").mkdir()
    for index in range(21):
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(path / "all" / f"{index}.png")
    return path


def test_a_fooled_model_is_told_from_its_original(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fool", "--data", str(photos), "--model", "tiny-vgg", "--batch-size", "6"]
    command += ["--epochs", "1", "--output", str(tmp_path), "--quiet"]
    assert main([*command, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card == json.loads((tmp_path / "card.json").read_text())
    assert card["attack"] == "fairwash"
    assert card["target"] == "42"
    assert card["trained_on"]["images"] == 18
    weights = ["--weights", str(tmp_path / "model.safetensors")]
    compared = ["compare", "--model", "tiny-vgg", *weights, str(photos / "all")]
    code = main([*compared, "--method", "gradient", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (3 if report["suspect"] else 0)
    assert set(report["maps"]) == {"gradient"}
    assert 0 < report["outputs"] < 1
    assert report["maps"]["gradient"] < 0.999


def test_a_model_beside_itself_is_no_comparison(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--model", "tiny-vgg", str(photos / "all")]) == 2
    assert "the same" in capsys.readouterr().err
    given = ["compare", "--model", "tiny-vgg-noise", "--reference", "tiny-vgg"]
    assert main([*given, str(photos / "all"), "--method", "gradient"]) in (0, 3)
    assert "suspicion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--attack", "magic"], "magic"),
        (["--attack", "fairwash:magic=1"], "no option"),
        (["--method", "rise"], "with derivatives"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    photos: Path, tmp_path: Path, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fool", "--data", str(photos), "--output", str(tmp_path / "new"), *wrong]
    assert main(command) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()
