"""``trompe probability``: one line per image, and nothing claimed beyond what was seen."""

from __future__ import annotations

import json

import pytest

from trompe.cli import main
from trompe.cli.probability import _sentence


def test_it_says_how_likely_each_image_is_misled(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--amount", "0.3", "--tau", "0.9", "--samples", "50", "--runs", "3"]
    assert main(["probability", *small, *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (row,) = report["images"]
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert row["evaluations"] >= 150
    assert main(["probability", *small, *options]) == 0
    assert row["verdict"] in capsys.readouterr().out
    assert main(["probability", *small, *options, "--monte-carlo", "--json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)["images"]
    assert (plain["evaluations"], plain["method"]) == (50, "monte carlo")


@pytest.mark.parametrize(
    "wrong", [["--amount", "0"], ["--amount", "nan"], ["--tau", "2"], ["--samples", "10"]]
)
def test_wrong_settings_are_refused_in_a_line(
    small: list[str], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probability", *small, *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_sentences() -> None:
    assert _sentence(0.0, 1e-3) == "Never seen; rarer than about one in 1,000."
    assert _sentence(0.5, 0.6) == "About 50% of such changes."
    assert _sentence(1e-4, 1e-3) == "About one in 10,000."
