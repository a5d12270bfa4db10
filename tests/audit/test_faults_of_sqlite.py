"""SQLite and the memory fail once: one clear line, and the same command completes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from trompe.audit import open_run
from trompe.audit.cell import Worker
from trompe.cli import main

pytestmark = pytest.mark.usefixtures("place")

OPTIONS = "--images images --model smallnet:net --size 16 --iterations 2 --pairs 2 --batch-size 1"
COMMAND = ["audit", "--output", "run", *OPTIONS.split(), "--no-worst-case", "--quiet"]


class Failing(sqlite3.Connection):
    """A connection of which one call fails, the n-th of all."""

    left, said, hit = 0, "", ""

    def _count(self, statement: str) -> None:
        Failing.left -= 1
        if Failing.left == 0:
            Failing.hit = statement
            raise sqlite3.OperationalError(Failing.said)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._count(statement)
        return super().execute(statement, *values)

    def executemany(self, statement: str, values: Sequence[Any], /) -> sqlite3.Cursor:
        self._count(statement)
        return super().executemany(statement, values)


def every_call_fails(
    said: str, step: int, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> int:
    """How many calls were made to fail."""
    connect = sqlite3.connect
    number = met = 0
    while True:
        shutil.rmtree("run", ignore_errors=True)
        number += step
        Failing.left, Failing.said, Failing.hit = number, said, ""
        with patch.context() as now:
            now.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Failing, **k))
            code = main(COMMAND)
        error = capfd.readouterr().err
        if not Failing.hit:
            assert code == 0, error
            return met
        met += 1
        assert code == 2, (Failing.hit, code, error)
        assert len(error.splitlines()) == 1, (Failing.hit, error)
        assert said in error, (Failing.hit, error)
        assert "unexpected" not in error, (Failing.hit, error)
        assert main(COMMAND) == 0, (Failing.hit, capfd.readouterr().err)
        assert main(["verify", "run", "--arrays-only", "--quiet"]) == 0, Failing.hit


@pytest.mark.parametrize("said", ["disk I/O error", "database or disk is full"])
def test_some_faults_of_sqlite(
    said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert every_call_fails(said, 19, monkeypatch, capfd) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("said", ["disk I/O error", "database or disk is full"])
def test_every_fault_of_sqlite(
    said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert every_call_fails(said, 1, monkeypatch, capfd) >= 80


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")],
    ids=["python", "torch"],
)
def test_memory_that_does_not_suffice_fails_its_cell_which_is_tried_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked = Worker._attacked

    def attack(self: Worker, cells: Any, pixels: Any) -> Any:
        if cells[0].id == 2:
            raise error
        return attacked(self, cells, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "_attacked", attack)
        assert main(COMMAND) == 3, "a cell is missing"
    run = open_run("run")
    assert [row.message is None for row in run.rows] == [True, False]
    assert type(error).__name__ in (run.rows[1].message or "")
    run.store.close()
    assert main(COMMAND) == 0
    assert main(["verify", "run", "--trust", "--quiet"]) == 0
