"""Audits with another objective or constraint than the usual ones: kept, judged, verified."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from trompe.attacks import LInfBall, Unlike, manipulate, preset_for
from trompe.audit import Run, Settings, Status, open_run, run_audit
from trompe.audit.completeness import whole_run_problems
from trompe.audit.leaderboard import leaderboard
from trompe.audit.store import Store
from trompe.audit.verify import Verifier
from trompe.cli import main
from trompe.errors import UsageError
from trompe.explain import explainer
from trompe.metrics import pcc
from trompe.report.html import write_report

from .conftest import numbers, small

pytestmark = pytest.mark.usefixtures("place")


def audited(**changes: object) -> Run:
    run_audit("run", small(**changes))
    return open_run("run")


def problems(run: Run) -> list[str]:
    found = [text for one in Verifier(run, trusted=None).check_all() for text in one.problems]
    return whole_run_problems(run.store) + found


def tampered(cell: int, **changes: torch.Tensor) -> None:
    """Put other arrays into a cell, under a checksum that fits."""
    run = open_run("run")
    (row,) = (row for row in run.rows if row.id == cell)
    kept = run.store.arrays.get(row.arrays or "")
    name = run.store.arrays.put({**kept, **changes})
    with Store(Path("run")) as store, store.transaction() as db:
        db.execute("UPDATE cells SET arrays = ? WHERE id = ?", (name, cell))


def test_the_cells_are_what_manipulate_finds_with_these_parts() -> None:
    run = audited(objective="unlike", constraint="linf:8/255", pairs=3, batch_size=3)
    assert run.record["objective"] == "unlike"
    assert run.record["constraint"] == "linf:8/255"
    assert [row.message for row in run.rows] == [None] * 3
    assert all(row.image == row.target for row in run.rows)  # each is attacked by itself
    assert len({row.image for row in run.rows}) == 3
    loaded = run.settings.models[0].load("cpu")
    found = manipulate(
        loaded.model,
        torch.cat([run.arrays(row)["x"] for row in run.rows]),
        explainer=explainer("gradient"),
        objective=Unlike(),
        constraint=LInfBall(8 / 255),
        input_space=loaded.input_space,
        preset=preset_for("fast", "gradient", 16),
        iterations=10,
    )
    assert torch.equal(found.x_adv, torch.cat([run.arrays(row)["x_adv"] for row in run.rows]))
    alike = pcc(found.map_adv, found.map_original)
    for row, expected in zip(run.rows, alike, strict=True):
        values = row.values
        assert values["objective_after"] == pytest.approx(float(expected), abs=1e-5)
        assert values["objective_original_pcc"] == values["objective_after"]
        assert values["objective_before"] == pytest.approx(1.0, abs=1e-6)
        assert values["objective_noise"] == pytest.approx(values["noise_original_pcc"], abs=1e-6)
        assert values["image_linf"] <= 8 / 255 + 1e-6
        assert "map_target_pcc" not in values  # it aimed at no map
        assert "map_target" not in run.arrays(row)
        assert "history_original_pcc" in run.arrays(row)
    assert problems(run) == []


def test_a_run_that_goes_on_is_the_same_and_takes_no_other_parts() -> None:
    parts = small(objective="topk:k=5", constraint="l2:0.5", pairs=3)
    run_audit("undisturbed", parts)

    def stop(now: Status) -> None:
        if now.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit("run", parts, watch=stop)
    assert 0 < open_run("run").status.done < 3
    run_audit("run", parts)
    assert numbers("run") == numbers("undisturbed")
    with pytest.raises(UsageError, match=r"--objective: topk:k=5 -> topk:k=6"):
        run_audit("run", small(objective="topk:k=6", constraint="l2:0.5", pairs=3))
    with pytest.raises(UsageError, match=r"--constraint: l2:0.5 -> not given"):
        run_audit("run", small(objective="topk:k=5", pairs=3))


def test_the_usual_parts_leave_the_record_as_it_was() -> None:
    run = audited(pairs=1)
    assert not {"objective", "constraint", "code_of_parts"} & run.record.keys()
    (entry,) = leaderboard(run)
    assert "objective" not in entry
    assert not [name for name in run.rows[0].values if name.startswith("objective_")]


def test_an_aim_that_the_objective_does_not_make_is_found() -> None:
    run = audited(objective="shift", pairs=2)
    assert problems(run) == []
    arrays = run.arrays(run.rows[0])
    expected = arrays["map_original"].roll((8, 8), dims=(1, 2))
    assert torch.equal(arrays["map_target"], expected)
    tampered(run.rows[0].id, map_target=arrays["map_original"])
    assert any("not the one that the objective makes" in one for one in problems(open_run("run")))


def test_an_image_outside_of_the_constraint_is_found() -> None:
    run = audited(constraint="linf:2/255", pairs=1)
    assert problems(run) == []
    arrays = run.arrays(run.rows[0])
    tampered(run.rows[0].id, x_adv=arrays["x"] + 2 * (arrays["x_adv"] - arrays["x"]))
    assert any("outside of LInfBall" in one for one in problems(open_run("run")))


@pytest.mark.parametrize("name", ["objective_after", "objective_noise", "objective_original_pcc"])
def test_made_up_numbers_of_the_objective_are_found(name: str) -> None:
    run = audited(objective="unlike", pairs=1)
    with Store(Path("run")) as store, store.transaction() as db:
        db.execute("UPDATE metrics SET value = -0.5 WHERE name = ?", (name,))
    assert any(f"{name} is" in text for text in problems(open_run("run")))
    run.store.close()


def test_a_number_that_the_objective_does_not_measure_is_found() -> None:
    audited(objective="unlike", pairs=1)
    with Store(Path("run")) as store, store.transaction() as db:
        db.execute("INSERT INTO metrics VALUES (1, 'objective_virtue', 1.0)")
    assert any("objective_virtue is nothing" in text for text in problems(open_run("run")))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"objective": "nearly"}, "unknown objective 'nearly'"),
        ({"objective": "topk:q=1"}, "objective topk has no option 'q'"),
        ({"objective": "topk:k=0"}, "k must be at least 1"),
        ({"objective": 3}, "given by name"),
        ({"constraint": "linf"}, "needs radius"),
        ({"constraint": "linf:-1"}, "radius must be positive"),
        ({"objective": "unlike", "presets": ("paper",)}, "use the preset fast or thorough"),
        ({"objective": "unlike", "pair_list": "pairs.csv"}, "aims at no other image"),
    ],
)
def test_parts_that_are_none_are_refused_before_anything_is_written(
    changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        Settings(**changes)  # type: ignore[arg-type]


def test_command_status_leaderboard_and_report_name_the_parts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = ["audit", "--model", "smallnet:net", "--size", "16", "--images", "images"]
    command += ["--pairs", "3", "--iterations", "10", "--output", "run", "--quiet"]
    command += ["--no-worst-case"]
    command += ["--objective", "unlike:measure=cosine", "--constraint", "linf:8/255"]
    assert main(command) == 0
    assert main(["audit", "--status", "--output", "run"]) == 0
    out = capfd.readouterr().out
    assert "objective    unlike:measure=cosine" in out
    assert "constraint   linf:8/255" in out
    page = write_report(open_run("run"), "out").read_text()
    assert "Objective of the attacks: <code>unlike:measure=cosine</code>" in page
    assert "Constraint of the attacks: <code>linf:8/255</code>" in page
    assert "Did the explanation change?" in page
    assert "with the original one fell below 0.5" in page
    assert "target explanation</div>" not in page
    assert "objective_after" in Path("out/tables/cells.csv").read_text()
    (file,) = Path("out/leaderboard").glob("*.json")
    entry = json.loads(file.read_text())
    assert entry["objective"] == "unlike:measure=cosine"
    assert "towards the objective unlike:measure=cosine" in entry["note"]
    assert main(["verify", "run", "--trust", "--quiet"]) == 0
