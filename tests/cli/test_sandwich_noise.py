"""``trompe sandwich --method noise`` and the options of certificates from noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trompe.cli import main

OPTIONS = ["--samples", "200", "--pool", "2", "--explainer", "gradient"]


def test_attack_and_certificate_side_by_side(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sandwich", *small, "--method", "noise", *OPTIONS, "--steps", "3", "--radii", "2"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "sandwich.json").read_text())
    assert report["verdict"] in said
    assert f"map of '{report['run']['label']}'" in report["verdict"]
    assert [row["radius"] for row in report["rows"]] == [0.025, 0.1]
    for row in report["rows"]:
        assert row["certified_pcc"] is None or row["certified_pcc"] <= row["attacked_pcc"] + 1e-9
        assert row["attacked_l1"] <= row["certified_l1"] + 1e-9
        assert row["certified_overlap"] <= row["attacked_overlap"] + 1e-9
    assert (tmp_path / "sandwich.png").stat().st_size > 10_000


def test_options_of_the_other_method_are_refused(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--output", str(tmp_path / "new")]
    of_proof = (["--beta", "1"], ["--patient"], ["--quantity", "heatmap_l1"], ["--restarts", "2"])
    for wrong in (*of_proof, ["--norm", "linf"]):
        assert main(["sandwich", *small, "--method", "noise", *wrong, *folder]) == 2
        assert f"{wrong[0]} is for --method proof" in capsys.readouterr().err
    of_noise = (["--explainer", "grad_cam"], ["--denoiser"], ["--sigma", "0.1"], ["--pool", "8"])
    for wrong in (*of_noise, ["--samples", "9"], ["--confidence", "0.9"]):
        for command in (["sandwich", *small, *folder], ["certify", *small]):
            assert main([*command, *wrong]) == 2
            assert f"{wrong[0]} is for --method noise" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main(["certify", *small, "--method", "noise", "-k", "5"]) == 2
    assert "-k is for the other methods" in capsys.readouterr().err


def test_certify_goes_on_from_a_folder(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["certify", *small, "--method", "noise", *OPTIONS, "--resume", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    first = capsys.readouterr().out
    assert (tmp_path / "image-0.safetensors").exists()
    assert main([*command, "--json"]) == 0
    assert capsys.readouterr().out == first
    assert main([*command, "--sigma", "0.2"]) == 2
    assert "another image, model or setting" in capsys.readouterr().err
