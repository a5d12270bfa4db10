"""The commands of the geometry, on a model small enough to be quick."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from trompe.cli import main


def test_curvature(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--beta", "10", "--beta", "1", "-k", "2", "--json", "--output", "out"]
    assert main(["curvature", *small, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["beta"] for row in report["rows"]] == [10, 1]
    assert all(row["converged"] for row in report["rows"])
    assert Image.open("out/curvature.png").size[0] > 300


@pytest.mark.parametrize("command", ["curvature", "sandwich"])
def test_the_class_explained_may_be_named(
    command: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["-k", "1"] if command == "curvature" else ["--radii", "1", "--steps", "1"]
    options = [*small, "--beta", "1", *quick, "--json", "--output", "out"]
    for chosen in (0, 2):
        assert main([command, *options, "--target-class", str(chosen)]) == 0
        assert json.loads(capsys.readouterr().out)["run"]["class"] == chosen
    assert main([command, *options, "--target-class", "3"]) == 2
    assert "--target-class 3: the model has the classes 0..2" in capsys.readouterr().err


def test_certify(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", *small, "--beta", "1", "--radius", "1e-3", "-k", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["heatmap_l1"] < 2
    assert report["confidence"] == 1
    assert main(["certify", *small, "--method", "smoothgrad", "--samples", "20"]) == 0
    assert "0.99" in capsys.readouterr().out


def test_sandwich(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--smallest", "1e-3", "--largest", "1e-1", "--radii", "2", "--steps", "2"]
    options += ["--beta", "0", "--beta", "1", "--json", "--output", "out"]
    assert main(["sandwich", *small, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["rows"]) == 12
    for row in report["rows"]:
        assert row["lower"] <= min(v for v in row["upper"].values() if v is not None)
    assert Image.open("out/sandwich.png").size[0] > 300


def test_sandwich_refuses_by_name(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandwich", *small, "--smallest", "2", "--largest", "1"]) == 2
    assert "--smallest" in capsys.readouterr().err


def test_smooth(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--choose", "--beta", "100", "--beta", "1", "--json", "--output", "out"]
    assert main(["smooth", *small, *options]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"] in (1, 100)
    assert Image.open("out/smooth.png").size[0] > 300


def test_smooth_with_an_attack_and_smoothgrad(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--compare", "--attack", "--at", "2", "--iterations", "2", "--beta", "5"]
    assert main(["smooth", *small, *options, "--json", "--quiet", "--output", "out"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(Path("out/smooth.json").read_text())
    assert report["comparison"]["closest_sigma"] > 0
    seconds = report["comparison"]["seconds"]
    assert list(seconds) == ["plain", "beta-smoothing", "SmoothGrad 10", "SmoothGrad 50"]
    assert list(report["attack"]) == ["plain", "beta=2", "smoothgrad=10"]
    assert all(one["iterations"] == 2 for one in report["attack"].values())
    assert [row["beta"] for row in report["recovery"]] == [5]
    for name in ("smooth", "distance", "comparison", "attack", "recovery"):
        assert Image.open(f"out/{name}.png").size[0] > 300


def test_smooth_in_words(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--choose", "--attack", "--iterations", "1", "--beta", "5", "--output", "out"]
    assert main(["smooth", *small, *options]) == 0
    text = capsys.readouterr().out
    assert "Attack on beta=0.8: correlation with the target" in text
    assert "explained with beta 5:" in text
    assert not Path("out/comparison.png").exists()
    assert main(["smooth", *small, "--attack", "--preset", "none", "--output", "other"]) == 2
    assert "unknown preset" in capsys.readouterr().err
    assert main(["smooth", *small, "--at", "0", "--output", "other"]) == 2
    assert "beta must be positive" in capsys.readouterr().err
    assert not Path("other").exists()


def test_the_tools_of_smooth_have_names(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["choose", *small, "--beta", "100", "--beta", "1", "--json", "--output", "a"]
    assert main(["smooth", *chosen]) == 0
    new = json.loads(capsys.readouterr().out)
    old = ["--choose", *small, "--beta", "100", "--beta", "1", "--json", "--output", "b"]
    assert main(["smooth", *old]) == 0
    assert json.loads(capsys.readouterr().out) == new
    assert main(["smooth", "compare", *small, "--beta", "2", "--json", "--output", "c"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"run", "comparison"}
    attacked = ["--beta", "2", "--iterations", "1", "--smoothgrad", "--json", "--quiet"]
    assert main(["smooth", "attack", *small, *attacked, "--output", "d"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["attack"]) == ["plain", "beta=2", "smoothgrad=10"]
    assert Image.open("d/recovery.png").size[0] > 300
    assert main(["smooth", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("choose", "compare", "attack"))
    assert "measure " not in text
