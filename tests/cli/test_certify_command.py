"""``trompe certify`` ends with one sentence that says what is guaranteed, or that nothing is."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import click
import pytest
import torch

from trompe.certificates import certificates
from trompe.cli import command, main
from trompe.cli.certify import _EXAMPLES
from trompe.norms import NORMS


def test_proofs_speak_of_the_class_of_the_model_itself(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", *small, "--beta", "0.1", "--radius", "1e-4", "--json"]) == 0
    softened = json.loads(capsys.readouterr().out)
    assert main(["certify", *small, "--radius", "1e-9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == softened["class"]
    assert main(["certify", *small, "--target-class", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == 1
    assert main(["certify", *small, "--target-class", "99"]) == 2
    assert "--target-class 99" in capsys.readouterr().err


def test_a_proof_ends_with_a_sentence_and_a_void_one_says_so(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", *small, "--beta", "1", "--radius", "1e-3"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    found = re.fullmatch(
        r"No change of the image smaller than 0\.001 \(l2, pixel units; 0\.255 of 255\) can move "
        r"the heat map by more than (\d\.\d+) of 2 \(l1\)\.",
        last,
    )
    assert found
    assert 0 < float(found[1]) < 2
    assert main(["certify", *small, "--radius", "1000"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("VOID: ")


def test_noise_ends_with_a_sentence_and_a_void_one_says_so(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--method", "noise", "--explainer", "gradient", "--samples", "300", "--pool", "2"]
    radii = ["--radius", "0.01", "--radius", "0.02"]
    assert main(["certify", *small, *options, *radii, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["radius"] for row in report["radii"]] == [0.01, 0.02]
    assert 0 < report["radii"][1]["pcc"] < report["radii"][0]["pcc"] < 1
    assert report["confidence"] == 0.99
    assert main(["certify", *small, *options, *radii]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    pcc = f"{math.floor(1000 * report['radii'][1]['pcc']) / 1000:.3f}"
    assert "smaller than 0.02 (l2, pixel units; 5.1 of 255)" in last
    assert f"below a correlation of {pcc} with what it is now" in last
    assert last.endswith("of the plain map nothing is proved.")
    assert main(["certify", *small, *options, "--radius", "10"]) == 0
    output = capsys.readouterr().out
    assert "correlation VOID" in output
    assert output.strip().splitlines()[-1].startswith("VOID: ")


def test_samples_are_a_number_or_auto(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "noise", "--explainer", "gradient", "--pool", "2", "--json"]
    assert main(["certify", *small, *options, "--samples", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 450
    assert main(["certify", *small, *options, "--samples", "many"]) == 2
    assert "many" in capsys.readouterr().err
    assert main(["certify", *small, "--samples", "auto"]) == 2
    assert "--method noise" in capsys.readouterr().err


def test_several_radii_are_for_noise(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", *small, "--radius", "0.1", "--radius", "0.2"]) == 2
    assert "one --radius" in capsys.readouterr().err


def test_an_unknown_certificate_is_named_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["certify", "--method", "lrp"]) == 2
    error = capsys.readouterr().err
    assert "lrp" in error
    assert all(name in error for name in certificates)


def test_the_example_of_the_help_is_not_void(capsys: pytest.CaptureFixture[str]) -> None:
    """Its first line, with fewer samples."""
    command = next(line for line in _EXAMPLES.splitlines() if line.startswith("  trompe certify"))
    torch.manual_seed(0)
    assert main([*command.split()[1:], "--samples", "200", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"].startswith("No change")
    assert report["radii"][0]["pcc"] > 0.9


@pytest.mark.parametrize("name", ["certify", "sandwich"])
def test_every_norm_is_a_choice(name: str) -> None:
    made = command.get_command(click.Context(command), name)
    assert made is not None
    (norm,) = (option for option in made.params if option.name == "norm")
    assert isinstance(norm.type, click.Choice)
    assert tuple(norm.type.choices) == NORMS


def test_the_l1_norm_is_certified(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", *small, "--norm", "l1", "--radius", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["norm"] == "l1"
    assert main(["certify", *small, "--norm", "l2", "--radius", "0.01", "--json"]) == 0
    assert found["gradient_l2"] <= json.loads(capsys.readouterr().out)["gradient_l2"]


@pytest.mark.parametrize("samples", ["9" * 30, "0", "-3", "1.5", "many"])
def test_the_number_of_noisy_copies_is_bounded(
    small: list[str], samples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", *small, "--method", "noise", "--samples", samples]) == 2
    error = capsys.readouterr().err.strip()
    assert "--samples" in error
    assert len(error.splitlines()) == 1


def test_a_sandwich_without_a_bound_says_void(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sandwich", *small, "--beta", "1", "--steps", "2", "--radii", "1"]
    command += ["--output", str(tmp_path), "--quantity", "heatmap_l1"]
    assert main([*command, "--smallest", "1e-4", "--largest", "1e-4"]) == 0
    assert "VOID" not in capsys.readouterr().out
    assert main([*command, "--smallest", "1000", "--largest", "1000"]) == 0
    assert "VOID: nothing is proved there" in capsys.readouterr().out
