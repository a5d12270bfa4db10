"""The benchmarks compare what is the same: trompe and its peers solve one problem."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
# By zennit, autograd, or trompe in another way.
COMPARED = (
    *("gradient", "grad_times_input", "integrated_grad", "guided_backprop", "lrp", "smoothgrad"),
    *("beta_smoothing", "deconvnet", "excitation_backprop", "uniform_gradient"),
)


@pytest.mark.parametrize("method", COMPARED)
def test_all_contenders_have_the_same_gradient(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zennit")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from contenders import disagreement
    from problem import problem

    model = nets.plain(seed=2).double()
    errors = disagreement(problem(model, 0.6 * nets.images(1, seed=5), method), None)
    assert errors
    assert max(errors.values()) < 1e-3, errors


def test_a_small_part_of_it_runs(tmp_path: Path) -> None:
    command = ["step.py", "--print", "--model", "tiny-vgg", "--method", "gradient"]
    command += ["--rounds", "1", "--steps", "1", "--memory", "--alone"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tiny-vgg gradient: forward" in done.stdout
    assert "MiB" in done.stdout


def test_a_card_gets_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import render_readme

    def entry(batch: int, **rates: float) -> dict[str, object]:
        found = {
            who: {"images_per_second": rate, "operations_per_second": rate * 1e11}
            for who, rate in rates.items()
        }
        return {"batch": batch, "contenders": found}

    monkeypatch.setattr(render_readme, "RESULTS", tmp_path)
    assert "no GPU" in render_readme.gpu()
    result = {
        "machine": {"gpu": "Some Card"},
        "tf32": True,
        "matrix_operations_per_second": 1e14,
        "models": {
            "vgg16": {
                "gradient": entry(1, trompe=40.0, reference=20.0),
                "gradient x8": entry(8, trompe=500.0),
                "gradient x16": entry(16, trompe=400.0),
            }
        },
    }
    (tmp_path / "step_some_card_tf32.json").write_text(json.dumps(result))
    text = render_readme.gpu()
    assert "Some Card, TF32" in text
    assert "| `vgg16` | `gradient` | 20 | 40 | 500 (8) | 25 x | 50 % |" in text


def test_the_ways_to_run_a_captured_step_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import capture

    found = capture.runners("tiny-vgg", "gradient", 1, compiled=False, seconds=0.01)
    assert set(found["seconds"]) == {"eager", "eager, beta a tensor", "graph"}
    found = capture.layouts("tiny-vgg", "lrp", 1, seconds=0.01)
    assert len(found["seconds"]) == 4
    assert all(seconds > 0 for seconds in found["seconds"].values())


@pytest.mark.slow
def test_guarantees_of_one_photo(tmp_path: Path) -> None:
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "grey.jpg")
    command = ["guarantees.py", "--print", "--data", str(tmp_path), "--attacked", "1"]
    command += ["--images", "1", "--samples", "60", "--iterations", "1", "--steps", "2"]
    command += ["--explainer", "integrated_grad"]
    result = ROOT / "benchmarks" / "results" / "guarantees.json"
    before = result.read_bytes()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ((key, row),) = json.loads(done.stdout).items()
    assert key == "tiny-vgg/integrated_grad, 2 steps/0.1/8/60/grey"
    assert result.read_bytes() == before
    assert row["pcc"][0] > row["pcc"][2]
    assert len(row["attacked_plain"]) == len(row["attacked_smoothed"]) == 3
    assert all(-1 <= value <= 1 for value in row["attacked_smoothed"])


def test_the_front_of_the_defences_and_their_masking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from plot_defences import front

    points = {"a": (0.6, 0.2), "b": (0.5, 0.9), "c": (0.5, 0.8), "d": (0.6, 0.2), "e": (0.1, 0.1)}
    assert front(points) == {"a", "b", "d"}
    result = json.loads((ROOT / "benchmarks" / "results" / "defences.json").read_text())
    for entry in result["networks"].values():
        plain, scaled = entry["rows"]["plain"], entry["rows"]["scaled logits"]
        assert scaled["accuracy"] == plain["accuracy"]
        assert scaled["ssr_measure"] < 1e-2 * plain["ssr_measure"]  # by SSR a great success
        assert scaled["robust"]["count"] <= plain["robust"]["high"] * plain["robust"]["n"]
