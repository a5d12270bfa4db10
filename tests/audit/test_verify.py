from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from trompe.audit import open_run, run_audit
from trompe.audit.arrays import ArrayStore
from trompe.audit.completeness import whole_run_problems
from trompe.audit.judgement import metrics_of
from trompe.audit.leaderboard import accuracy, leaderboard, robust, status
from trompe.audit.results import Row
from trompe.audit.store import Store
from trompe.audit.verify import Verifier
from trompe.cli import main

from .conftest import small

pytestmark = pytest.mark.usefixtures("place")


@contextmanager
def changed() -> Iterator[sqlite3.Connection]:
    """The run's store, to be tampered with."""
    with Store(Path("run")) as store, store.transaction() as db:
        yield db


def test_an_untouched_run_agrees_with_what_is_recomputed() -> None:
    run_audit("run", small(smoothings=("none", "beta=0.8")))
    run = open_run("run")
    checked = list(Verifier(run, trusted=None).check_all())
    assert [one.problems for one in checked] == [()] * 8
    assert whole_run_problems(run.store) == []


def test_changed_numbers_and_arrays_are_found(capfd: pytest.CaptureFixture[str]) -> None:
    run_audit("run", small())
    assert main(["verify", "run", "--trust", "--quiet"]) == 0
    run = open_run("run")
    with changed() as db:
        db.execute("UPDATE metrics SET value = 0.99 WHERE cell = 1 AND name = 'map_target_pcc'")
    path = run.store.arrays.path(run.rows[1].arrays or "")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    folder = Path("run/leaderboard")
    folder.mkdir()
    entry = leaderboard(run)[0] | {"robust_explanation_accuracy": 2.0}
    (folder / "made-up.json").write_text(json.dumps(entry))
    assert main(["verify", "run", "--trust", "--quiet", "--json"]) == 2
    out, err = capfd.readouterr()
    problems = json.loads(out)["problems"]
    (line,) = err.splitlines()
    assert problems[0] in line
    for words in (
        "what came of the cells 1, 2 (batch 1) is not as it was entered",
        "cell 1: map_target_pcc",
        "cell 2: array file",
        "made-up.json is not what follows",
    ):
        assert any(words in problem for problem in problems), (words, problems)


@pytest.mark.parametrize("kind", ["target", "adv"])
def test_a_made_up_map_under_a_checksum_that_fits_is_found(kind: str) -> None:
    run_audit("run", small())
    run = open_run("run")
    one = run.rows[0]
    arrays = run.store.arrays.get(one.arrays or "")
    other = {"target": "adv", "adv": "target"}[kind]
    arrays[f"map_{kind}"] = arrays[f"map_{other}"].clone()
    name = run.store.arrays.put(arrays)
    loaded = run.settings.models[0].load("cpu")
    values = metrics_of(run.arrays(one)["x"], arrays, loaded.input_space)
    with changed() as db:
        db.execute("UPDATE cells SET arrays = ? WHERE id = 1", (name,))
        for key, value in values.items():
            db.execute("UPDATE metrics SET value = ? WHERE cell = 1 AND name = ?", (value, key))
    first, *others = Verifier(open_run("run"), trusted=None).check_all()
    assert any(f"the {kind} map differs" in text for text in first.problems)
    assert not any(checked.problems for checked in others)


def test_a_flag_taken_away_is_found() -> None:
    run_audit("run", small())
    with changed() as db:
        db.execute("UPDATE cells SET flags = '[\"class changed\"]' WHERE id = 1")
    first, *others = Verifier(open_run("run"), trusted=None).check_all()
    assert any("class changed" in text for text in first.problems)
    assert not any(checked.problems for checked in others)


def row(**values: float) -> Row:
    full = {"class_kept": 1.0, "map_original_pcc": 0.9, "image_linf": 0.01} | values
    return Row(1, "m", "gradient", None, "paper", "i", "t", None, full, (), None, None, None)


def test_what_counts_as_robust() -> None:
    tau, epsilon = 0.5, 0.02
    assert robust([row()], tau, epsilon)
    assert not robust([row(), row(map_original_pcc=0.4)], tau, epsilon)
    undefined = row()
    del undefined.values["map_original_pcc"]  # type: ignore[attr-defined]
    assert not robust([undefined], tau, epsilon)


def failed() -> Row:
    return dataclasses.replace(row(), message="no map", values={})


def test_attacks_outside_the_radius_never_make_an_image_robust() -> None:
    outside = row(map_original_pcc=0.9, image_linf=0.5)
    assert status([outside], 0.5, 0.02) == "unknown"
    assert status([outside, row()], 0.5, 0.02) == "nothing found"
    assert status([outside, row(map_original_pcc=0.1)], 0.5, 0.02) == "success"
    assert status([row(map_original_pcc=0.1, image_linf=0.5), row()], 0.5, 0.02) == "nothing found"


def test_a_changed_class_is_no_broken_explanation_and_no_evidence() -> None:
    assert status([row(class_kept=0.0, map_original_pcc=0.1)], 0.5, 0.02) == "unknown"
    assert status([row(class_kept=0.0, map_original_pcc=0.1), row()], 0.5, 0.02) == "nothing found"


def test_the_original_image_given_back_is_no_evidence() -> None:
    assert status([row(image_linf=0.0, map_original_pcc=1.0)], 0.5, 0.02) == "unknown"


def test_failed_cells_are_counted_apart_and_never_robust() -> None:
    assert status([failed(), failed()], 0.5, 0.02) == "failed"
    assert status([failed(), row(map_original_pcc=0.1)], 0.5, 0.02) == "success"
    rows = [row(), dataclasses.replace(failed(), image="j"), dataclasses.replace(row(), image="k")]
    found = accuracy(rows, 0.5, 0.02)
    assert (found.count, found.n) == (2, 3)


def test_what_is_not_complete_is_no_forgery_and_counts_images_that_are_done(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(worst_case=0.02, batch_size=1)
    put, done = ArrayStore.put, []

    def interrupted(self: ArrayStore, tensors: dict[str, torch.Tensor]) -> str:
        done.append(0)
        if len(done) > 20:  # three arrays for each of 4 attacks, and for 2 of 4 searches
            raise KeyboardInterrupt
        return put(self, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(ArrayStore, "put", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            run_audit("run", settings)
    run = open_run("run")
    assert run.status.open == 2
    (entry,) = leaderboard(run)
    assert entry["images"] == sum(entry["status"].values()) == 2
    assert (entry["attacks"], entry["worst_case"]["images"]) == (2, 2)
    assert main(["verify", "run", "--trust", "--json"]) == 2
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["problems"] == []
    assert report["incomplete"] == "2 of 8 cells are open"
    line = err.splitlines()[-1]
    assert "does not agree" not in line
    assert "is not complete: 2 of 8 cells are open" in line
    assert main(["report", "run", "--for", "audit", "--author", "A", "--quiet"]) == 0
    signed = json.loads(Path("run/audit-report.json").read_text())
    assert any("not complete: 2 of 8" in text for text in signed["verdict"])
    assert main(["verify", "run", "--trust", "--quiet"]) == 2
    assert "is not complete" in capfd.readouterr().err
    with changed() as db:
        db.execute("UPDATE metrics SET value = 0.99 WHERE cell = 1 AND name = 'map_target_pcc'")
    assert main(["verify", "run", "--trust", "--quiet"]) == 2
    assert "does not agree" in capfd.readouterr().err
    with changed() as db:
        db.execute("DELETE FROM planned")
    assert main(["verify", "run", "--trust", "--quiet"]) == 2
    assert "does not agree" in capfd.readouterr().err
