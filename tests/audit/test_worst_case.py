"""The search for the worst case in a run: kept, resumed, verified, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

import trompe
from trompe.attacks import batch_attack
from trompe.audit import Settings, chain, open_run, run_audit
from trompe.audit.batches import WORST_CASE
from trompe.audit.leaderboard import EPSILON, leaderboard, status
from trompe.audit.results import Row, Run
from trompe.audit.seal import write_seal
from trompe.audit.store import Store
from trompe.audit.verify import Verifier
from trompe.audit.worst_case import Searcher, search_problems
from trompe.cli import main
from trompe.errors import UsageError
from trompe.metrics import pcc
from trompe.robustness import RobustnessResult, batch
from trompe.robustness.evaluation import FAILED, NOTHING, SUCCESS, UNKNOWN
from trompe.robustness.shares import share

from .conftest import numbers, small

pytestmark = pytest.mark.usefixtures("place")

#: A linear network: its gradient is the same everywhere.
LINEAR = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).eval()
"""


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "QUERIES", 100)


def searching(**changes: object) -> Settings:
    return small(worst_case=0.05, smoothings=("none", "beta=0.8"), **changes)


def test_each_image_is_searched_once_and_the_number_follows_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float] = []

    def noted(*args: object, **options: object) -> RobustnessResult:
        found = trompe.auto_attack(*args, **options)  # type: ignore[arg-type]
        told.extend(found.worst["pcc"].tolist())
        return found

    monkeypatch.setattr("trompe.audit.worst_case.auto_attack", noted)
    assert run_audit("run", searching()).complete
    run = open_run("run")
    worst = [row.values["map_original_pcc"] for row in run.searches]
    assert worst == pytest.approx(told, abs=1e-4), "the worst image of the search is kept"
    images = {row.image for row in run.rows}
    assert len(run.rows) == 8
    for smoothing in ("none", "beta=0.8"):
        own = [row for row in run.searches if row.defence == smoothing]
        assert sorted(row.image for row in own) == sorted(images)
    # Independently: the images that were kept, seen by the network and the method anew.
    spec = run.settings.models[0].load()
    for row in [row for row in run.searches if row.smoothing is None]:
        arrays = run.arrays(row)
        away = (arrays["x_adv"] - arrays["x"]) / spec.input_space.scale(1.0, arrays["x"])
        assert away.abs().max() <= EPSILON + 1e-6
        classes = spec.model(arrays["x"]).argmax(dim=1)
        assert (spec.model(arrays["x_adv"]).argmax(dim=1) == classes).all()
        method = trompe.explainer("gradient")
        with torch.enable_grad():
            maps = [
                trompe.heatmap(method(spec.model, arrays[name], classes)) for name in ("x", "x_adv")
            ]
        assert float(pcc(maps[1], maps[0])) == pytest.approx(
            row.values["map_original_pcc"], abs=1e-4
        )
    for entry in leaderboard(run):
        own = [r for r in run.searches if r.defence == entry["defence"]]
        shown = [r for r in run.rows if r.defence == entry["defence"]]
        held = [
            r
            for r in own
            if r.values["judged"] > 0
            and r.values["map_original_pcc"] >= 0.5
            and status([s for s in shown if s.image == r.image], 0.5, EPSILON) != SUCCESS
        ]
        expected = share(len(held), len(own))
        assert entry["robust_explanation_accuracy"] == expected.value
        assert entry["interval"] == [expected.low, expected.high]
        assert entry["images"] == len(images)
        assert entry["worst_case"]["budget"] == 0.05
        assert entry["worst_case"]["images"] == len(own)
        assert entry["failed"] == 0
        assert "auto_attack" in entry["note"]
    assert [one.problems for one in Verifier(run, trusted=None).check_all()] == [()] * 16
    run.store.close()


def test_a_linear_network_withstands_the_search_and_is_said_to(place: Path) -> None:
    """Its map cannot be moved: no image is worse than the original, and that is a result."""
    (place / "linear.py").write_text(LINEAR)
    spec = dataclasses.replace(small().models[0], name="linear:net")
    run_audit("run", small(models=(spec,), worst_case=0.05, iterations=2))
    run = open_run("run")
    (entry,) = leaderboard(run)
    assert entry["status"][NOTHING] == entry["images"] == 4
    assert entry["robust_explanation_accuracy"] == 1.0
    assert entry["worst_case"]["mean_pcc"] == pytest.approx(1.0)
    assert not [p for one in Verifier(run, trusted=None).check_all() for p in one.problems]
    run.store.close()


def test_an_attack_without_a_step_is_one_of_a_constant_map_or_forged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The linear network above is verified; a map that depends on the image needs its steps."""
    with monkeypatch.context() as patched:
        patched.setattr(batch_attack, "is_constant", lambda *args: True)
        run_audit("run", small(iterations=2))
    run = open_run("run")
    assert all(row.values["iterations"] == 0 for row in run.rows)
    said = [p for one in Verifier(run, trusted=None).check_all() for p in one.problems]
    assert len(said) == len(run.rows)
    assert all("not a single step although its map depends" in problem for problem in said)
    run.store.close()


def test_an_ended_run_goes_on_and_loses_at_most_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = Searcher._attacked
    calls = []

    def ends(self: Searcher, *args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return searched(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Searcher, "_attacked", ends)
    with pytest.raises(KeyboardInterrupt):
        run_audit("run", searching())
    run = open_run("run")
    assert len(run.rows) == 8
    assert len(run.searches) == 2, "the first batch is kept"
    kept = {row.id: row.arrays for row in run.searches}
    # What was not searched yet is not known, whatever the attacks found.
    (entry, *_) = leaderboard(run)
    assert entry["status"][NOTHING] <= 2
    run.store.close()
    assert run_audit("run", searching()).complete
    assert len(calls) == 5, "4 batches, of which one was begun twice"
    run = open_run("run")
    assert {row.id: row.arrays for row in run.searches if row.id in kept} == kept
    run.store.close()
    run_audit("undisturbed", searching())
    assert numbers("run") == numbers("undisturbed")
    first, second = (
        [r.values["map_original_pcc"] for r in searches(f)] for f in ("run", "undisturbed")
    )
    assert first == second


def searches(folder: str) -> list[Row]:
    run = open_run(folder)
    found = run.searches
    run.store.close()
    return found


def test_a_search_that_fails_counts_and_never_as_robust(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> object:
        raise RuntimeError("no memory of that kind")

    monkeypatch.setattr("trompe.audit.worst_case.auto_attack", fails)
    settings = small(worst_case=0.05, pairs=2)
    assert run_audit("run", settings).errors == 2
    run = open_run("run")
    (entry,) = leaderboard(run)
    assert entry["status"][NOTHING] == 0
    assert entry["status"][FAILED] + entry["status"][SUCCESS] == entry["images"] == 2
    assert entry["worst_case"]["failed"] == 2
    assert entry["robust_explanation_accuracy"] == 0.0
    run.store.close()


def cell(preset: str, *, pcc: float = 0.9, size: float = 0.01, message: str | None = None) -> Row:
    values = {"class_kept": 1.0, "map_original_pcc": pcc, "image_linf": size}
    if preset == WORST_CASE:
        values["judged"] = 5.0
    return Row(1, "m", "gradient", None, preset, "i", "i", message, values, (), "x", "x", "a")


def test_only_the_search_shows_that_an_explanation_withstands() -> None:
    attack, search = cell("fast"), cell(WORST_CASE)

    def found(*rows: Row, epsilon: float = EPSILON) -> str:
        return status(rows, 0.5, epsilon, searching=True)

    assert found(attack) == UNKNOWN
    assert found(attack, search) == NOTHING
    assert found(search) == NOTHING
    assert found(cell(WORST_CASE, size=0.0, pcc=1.0)) == NOTHING
    assert found(attack, cell(WORST_CASE, pcc=0.4)) == SUCCESS
    assert found(cell("fast", pcc=0.4), search) == SUCCESS, "an attack can break what it missed"
    assert found(cell("fast", pcc=0.4, size=0.2), search) == NOTHING, "beyond the radius"
    assert found(attack, cell(WORST_CASE, message="no memory")) == FAILED
    assert found(cell("fast", pcc=0.4), cell(WORST_CASE, message="no memory")) == SUCCESS
    assert found(search, epsilon=16 / 255) == UNKNOWN, "nobody looked so far away"
    assert found(search, epsilon=4 / 255) == NOTHING
    none_judged = dataclasses.replace(search, values={**search.values, "judged": 0.0})
    assert found(attack, none_judged) == UNKNOWN
    lost = {k: v for k, v in search.values.items() if k != "map_original_pcc"}
    assert found(dataclasses.replace(search, values=lost)) == SUCCESS, "no map is left"


def test_a_search_that_looked_at_nothing_or_moved_the_class_cannot_be() -> None:
    x = torch.rand(1, 3, 4, 4)
    search = cell(WORST_CASE, size=0.0, pcc=1.0)
    good = dataclasses.replace(search, values={**search.values, "flipped": 0.0})

    def wrong(x_adv: torch.Tensor = x, **values: float) -> str:
        row = dataclasses.replace(good, values={**good.values, **values})
        return "; ".join(search_problems(row, {"x": x, "x_adv": x_adv}))

    assert wrong() == ""
    assert "not looked at a single image" in wrong(judged=0.0)
    assert wrong(judged=0.0, flipped=3.0) == ""
    assert "judged none" in wrong(x + 0.01, judged=0.0, flipped=3.0)
    assert "another class" in wrong(class_kept=0.0)


#: What a forger might do to a search; the checksums are made to fit.
FORGED = {
    "nothing was judged": "UPDATE metrics SET value = 0 WHERE name IN ('judged', 'flipped')",
    "a better number": "UPDATE metrics SET value = 0.99 WHERE name = 'map_original_pcc' "
    f"AND cell IN (SELECT id FROM cells WHERE preset = '{WORST_CASE}')",
    "a flag invented": "UPDATE cells SET flags = '[\"all is well\"]' "
    f"WHERE preset = '{WORST_CASE}'",
    "the images of others": "UPDATE cells SET arrays = (SELECT MIN(arrays) FROM cells WHERE "
    f"preset = '{WORST_CASE}') WHERE preset = '{WORST_CASE}'",
    "the control": "UPDATE metrics SET value = 0.0123 WHERE name = 'noise_original_pcc' "
    f"AND cell IN (SELECT id FROM cells WHERE preset = '{WORST_CASE}')",
    "fewer images searched": "DELETE FROM metrics WHERE cell = (SELECT MAX(id) FROM cells);"
    "DELETE FROM cells WHERE id = (SELECT MAX(id) FROM cells)",
}


@pytest.fixture
def run(place: Path) -> Path:
    run_audit("run", small(worst_case=0.05, pairs=2, iterations=2))
    return Path("run")


def test_verify_finds_what_was_forged(run: Path) -> None:
    assert main(["verify", str(run), "--trust", "--quiet"]) == 0
    shutil.copytree(run, "whole")
    unnoticed = []
    for what, statements in FORGED.items():
        shutil.rmtree(run)
        shutil.copytree("whole", run)
        with sqlite3.connect(run / "run.sqlite") as db:
            db.executescript(statements)
        db.close()
        if main(["verify", str(run), "--arrays-only", "--quiet"]) != 2:
            unnoticed.append(f"{what}, by its checksum")
        with Store(run) as store, store.transaction() as again:
            again.execute("DELETE FROM chain")
            for subject in dict.fromkeys(chain._expected(again)):
                chain.link(again, subject)
        with Store(run) as store:
            write_seal(store)
        if main(["verify", str(run), "--trust", "--quiet"]) != 2:
            unnoticed.append(what)
    assert unnoticed == []


def test_a_worst_image_outside_of_the_radius_is_noticed(run: Path) -> None:
    opened = open_run(run)
    (row, *_) = opened.searches
    arrays = opened.arrays(row)
    loaded = opened.settings.models[0].load()
    space = loaded.input_space
    far = space.clamp(arrays["x"] + space.scale(0.1, arrays["x"]))
    verifier = Verifier(opened, trusted=None)
    found = [*verifier._anew(row, {**arrays, "x_adv": far}, loaded)]
    assert any("outside of LInfBall" in text for text in found)
    opened.store.close()


def test_command_searches_unless_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "--images", "images", "--model", "smallnet:net", "--size", "16"]
    command += ["--quiet", "--output"]
    assert main([*command, "a", "--short", "--pairs", "2"]) == 0
    assert main([*command, "b", "--short", "--no-worst-case"]) == 0
    two = ["--iterations", "2", "--pairs", "2"]
    assert main([*command, "c", *two, "--worst-case", "0.03"]) == 0
    budgets, counts, pairs = [], [], []
    for folder in "abc":
        run = Run(Store(Path(folder), reading=True))
        budgets.append(run.settings.worst_case)
        counts.append(len(run.searches))
        pairs.append(run.settings.pairs)
        run.store.close()
    assert pairs == [2, 3, 2]
    assert budgets == [0.01, None, 0.03]
    assert counts == [2, 0, 2]
    assert main([*command, "d", "--no-worst-case", "--worst-case", "1"]) == 2
    assert main([*command, "d", "--worst-case", "0"]) == 2
    assert main(["report", "a", "--output", "out", "--quiet"]) == 0
    page = Path("out/report.html").read_text()
    assert "looking for the worst map within 8/255" in page
    assert "with a budget of 0.01" in page
    (file,) = Path("out/leaderboard").glob("*.json")
    entry = json.loads(file.read_text())
    assert entry["format"] == "trompe-leaderboard-4"
    assert entry["worst_case"]["budget"] == 0.01
    capsys.readouterr()
    assert main(["audit", "--output", "a", "--status"]) == 0
    assert "looked for with a budget of 0.01" in capsys.readouterr().out


def test_a_budget_that_is_none_is_refused() -> None:
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="worst case's budget"):
            small(worst_case=budget)
