from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trompe.audit.status import Status
from trompe.cli.outcome import status_in_words

SHORT = ("--preset", "fast", "--iterations", 2, "--pairs", 2, "--batch-size", 2, "--threads", 1)
SHORT += ("--no-worst-case",)


def test_audit_status_report_and_verify(run: Callable[..., object], folder: Path) -> None:
    code, out, _ = run("audit", "--output", "r", *SHORT, "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["done"] == 2
    code, out, _ = run("audit", "--output", "r", "--status")
    assert code == 0
    assert "2 of 2 cells done, 0 failed (complete)" in out
    assert "gradient on tiny-vgg: for " in out
    assert "Pictures, advice and limits: trompe report r\n" in out
    code, out, err = run("audit", "--output", "r", *SHORT, "--seed", 5, "--quiet")
    assert code == 2
    assert "seed: 0 -> 5" in err
    code, out, err = run("audit", "--output", "r", *SHORT, "--chunk", 3, "--quiet")
    assert code == 2
    assert "--chunk: not given -> 3" in err  # a run without has none in its record
    code, out, _ = run("report", "r", "--gallery", 1)
    assert (code, out) == (0, "Report: r/report.html\n")
    assert (folder / "r/report.html").stat().st_size > 10_000
    code, out, _ = run("verify", "r", "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["problems"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audit", "--status"), "holds no run"),
        (("report", "nowhere"), "holds no run"),
        (("verify", "nowhere"), "holds no run"),
        (("audit", "--smoothing", "much"), "unknown smoothing"),
        (("audit", "--short", "--iterations", 3), "--short"),
        (("audit", "--images", "nowhere"), "nowhere"),
        (("audit", "--model", "tiny-vgg=nowhere.pt"), "nowhere.pt"),
        (("audit", "--weights", "nowhere.pt"), "nowhere.pt"),
        (("audit", "--model", "tiny-vgg=a.pt", "--weights", "b.pt"), "NAME=WEIGHTS"),
        (("audit", "--model", "a", "--model", "b", "--weights", "b.pt"), "NAME=WEIGHTS"),
        (("audit", "--images", "null.csv"), "null character"),
        (("reproduce", "25"), "choose from 1, 2, 3"),
        (("verify", "r", "--arrays-only", "--device", "auto"), "--arrays-only runs none"),
        (("verify", "r", "--arrays-only", "--trust"), "--arrays-only runs none"),
        (("reproduce", "13"), "nothing stands for AlexNet"),
        (("reproduce", "16", "--cifar-images", "f.npz"), "together"),
        (("reproduce", "everything"), "or all"),
        (("reproduce", "3", "--scale", "paper"), "--images"),
    ],
)
def test_bad_input(
    refused: Callable[..., str], folder: Path, arguments: tuple[object, ...], message: str
) -> None:
    (folder / "null.csv").write_text("file,class\na\0b.png,0\n")
    assert message in refused(*arguments)


def test_status_in_words() -> None:
    status = Status(10, 4, 1, 2, True, 50, {"m": 3}, 1, {"class changed": 2}, 9.0)
    text = status_in_words(status, Path("r"))
    assert "4 of 10 cells done, 1 failed (not complete" in text
    assert "3 that m classifies wrongly" in text
    assert "class changed: 2" in text


def test_status_says_why_cells_failed() -> None:
    failures = {"ModelError: a": 5, "b": 3, "c": 2, "d": 1, "e": 1}
    status = Status(15, 3, 12, 0, True, 50, {}, 0, {}, 9.0, failures=failures)
    text = status_in_words(status, Path("r"))
    assert "failed       5: ModelError: a" in text
    assert "2 more reasons" in text
    assert "1: d" not in text


def test_reproduce_needs_no_audit_for_figure_24(run: Callable[..., object], folder: Path) -> None:
    code, out, _ = run("reproduce", 24, "--output", "f")
    assert code == 0
    assert "AGREES" in out
    assert (folder / "f/smoke/figure_24.png").exists()
    assert json.loads((folder / "f/smoke/figure_24.json").read_text())["agreement"] == {"agrees": 1}
