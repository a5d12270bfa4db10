"""Batches done again: an untouched run comes out the same, whatever happened to it meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trompe.audit import open_run, repeat, run_audit
from trompe.audit.cell import Worker
from trompe.audit.repeat import Repeater
from trompe.audit.verify import Verifier
from trompe.audit.worst_case import Searcher
from trompe.cli import main
from trompe.robustness import batch

from .conftest import NETWORK, small, write_images

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("repeated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "QUERIES", 20)
        patch.syspath_prepend(str(SCRIPTS))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.chdir(folder)
        (folder / "smallnet.py").write_text(NETWORK)
        write_images(folder / "images", 8)
        run_audit("original", settings())
        yield


def settings() -> Any:
    return small(pairs=3, worst_case=0.002)


@pytest.fixture
def run() -> Iterator[Path]:
    shutil.copytree("original", "run")
    yield Path("run").absolute()
    shutil.rmtree("run")


def again(*options: str) -> dict[str, Any]:
    """What repeating all batches finds, of a run that is intact but for that."""
    opened = open_run("run")
    repeater = Repeater(opened, Verifier(opened, trusted=None))
    done = [repeater.repeat(number) for number in repeater.drawn(1000, 0)]
    opened.store.close()
    return {
        "cells": sum(one.cells for one in done),
        "exact": sum(one.exact for one in done),
        "problems": [text for one in done for text in one.problems],
        "left": [text for one in done for text in one.left],
    }


def forged(run: Path, what: str) -> None:
    """A forgery with all checksums made to fit, which nothing but repeating tells."""
    from forgeries import forgeries, reseal

    (chosen,) = [one for one in forgeries(run) if one.name == what]
    chosen.change(run)
    reseal(run)
    assert main(["verify", str(run), "--trust", "--quiet"]) == 0


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("images", [(), ("--images", "images")])
def test_an_untouched_run_comes_out_bit_by_bit(
    images: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", "run", "--trust", "--repeat", "100", "--exact", *images, "--json"]
    assert main([*command, "--quiet"]) == 0
    found = json.loads(capfd.readouterr().out)["repeated"]
    assert found["cells"] == found["exact"] == 6
    assert found["problems"] == found["left"] == []


@pytest.mark.usefixtures("run")
def test_which_batches_are_drawn_nobody_knows_beforehand_but_it_is_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repeater, "repeat", lambda self, n: repeat.Repeated(n, 0, 0, 0, (), ()))

    def drawn(*seed: str) -> dict[str, Any]:
        command = ["verify", "run", "--trust", "--repeat", "2", "--json", "--quiet", *seed]
        assert main(command) == 0
        return json.loads(capfd.readouterr().out)["repeated"]

    first, second = drawn(), drawn()
    assert first["seed"] != second["seed"]
    assert len(set(first["batches"])) == 2
    assert drawn("--seed", str(first["seed"])) == first
    assert len({tuple(drawn("--seed", str(seed))["batches"]) for seed in range(8)}) > 2


#: What is forged, and what is said of it.
FORGED = {
    "search: gave the original back": "map_original_pcc is",
    "a search said to have failed": "it does not fail, as it is said to have done (no memory)",
    "an attack said to have failed": "it does not fail, as it is said to have done (no memory)",
    "searches that looked ten times as long": "images, not at",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forgery_that_only_repeating_tells_is_found(
    run: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    forged(run, what)
    command = ["verify", "run", "--trust", "--repeat", "100", "--images", "images", "--quiet"]
    assert main(command) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "done again: " in line
    assert FORGED[what] in line


def test_a_failed_cell_whose_images_nobody_keeps_needs_them(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = open_run(run)
    kept = {row.image_number for row in opened.searches}
    (row, *_) = [r for r in opened.rows if r.target_number not in kept]
    opened.store.close()
    import sqlite3

    from forgeries import reseal

    with sqlite3.connect(run / "run.sqlite") as db:
        db.execute("DELETE FROM metrics WHERE cell = ?", (row.id,))
        db.execute(
            "UPDATE cells SET status = 'error', message = 'no memory', x = NULL, target_x = NULL, "
            "arrays = NULL, flags = NULL WHERE id = ?",
            (row.id,),
        )
    db.close()
    reseal(run)
    for name in (row.arrays, row.target_x):
        next((run / "arrays").rglob(f"{name}*")).unlink()
    command = ["verify", "run", "--trust", "--repeat", "100", "--quiet"]
    assert main(command) == 2
    assert f"cell {row.id} failed, and no other cell keeps its images" in capfd.readouterr().err
    assert main([*command, "--images", "images"]) == 2
    assert "it does not fail" in capfd.readouterr().err


@pytest.mark.parametrize("failing", [{1, 4}, {2, 3, 5, 6}])
def test_cells_that_were_tried_again_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    """Alone, or with those that failed as well: a search's seed depends on its batch."""
    shutil.rmtree("run", ignore_errors=True)
    with monkeypatch.context() as patch:
        for of in (Worker, Searcher):

            def attack(self: Worker, cells: Any, pixels: Any, real: Any = of._attacked) -> Any:
                if failing & {cell.id for cell in cells}:
                    raise MemoryError("DefaultCPUAllocator: can't allocate memory")
                return real(self, cells, pixels)

            patch.setattr(of, "_attacked", attack)
        run_audit("run", settings())
    assert open_run("run").status.errors == len(failing)
    assert run_audit("run", settings()).complete
    found = again()
    assert found["exact"] == found["cells"] == 6
    shutil.rmtree("run")


def test_rounding_is_no_forgery_unless_exactness_is_asked_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    images = repeat._KeptImages._images
    monkeypatch.setattr(
        repeat._KeptImages, "_images", lambda *arguments: images(*arguments) * (1 + 2**-22)
    )
    command = ["verify", str(run), "--trust", "--repeat", "100"]
    assert main(command) == 0
    assert "0 the same bit by bit, 6 but for rounding" in capfd.readouterr().out
    assert main([*command, "--exact", "--quiet"]) == 2
    assert "it differs in some bits" in capfd.readouterr().err


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: (folder / "i0003.png").unlink(), "there are 7, the run has 8"),
        (
            lambda folder: shutil.copy(folder / "i0001.png", folder / "i0002.png"),
            "'i0002.png' is none of the run's, or has another content",
        ),
        (lambda folder: (folder / "i0000.png").rename(folder / "z.png"), "'z.png' is none of"),
    ],
)
def test_other_images_are_told_in_one_line_before_the_work(
    monkeypatch: pytest.MonkeyPatch, change: Any, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Verifier, "check", lambda *_: pytest.fail("it was worked"))
    shutil.copytree("images", "others")
    change(Path("others"))
    try:
        command = ["verify", "run", "--trust", "--repeat", "1", "--images", "others", "--quiet"]
        assert main(command) == 2
    finally:
        shutil.rmtree("others")
    (line,) = capfd.readouterr().err.splitlines()
    assert "the images of 'others' are not those of the run" in line
    assert why in line


@pytest.mark.usefixtures("run")
def test_code_that_nobody_vouched_for_is_not_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Verifier, "_load", lambda *_: pytest.fail("code of the run was run"))
    assert main(["verify", "run", "--repeat", "100", "--quiet"]) == 2
    assert "give --trust if you trust it" in capfd.readouterr().err


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    "options", [["--seed", "3"], ["--exact"], ["--repeat", "1", "--arrays-only"], ["--repeat", "0"]]
)
def test_options_that_mean_nothing(options: list[str]) -> None:
    assert main(["verify", "run", "--quiet", *options]) == 2
