"""No room from any write on: one clear line; with room again the same numbers as undisturbed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trompe.audit.claims import Claims
from trompe.audit.seal import NAME, write_seal
from trompe.audit.store import Store
from trompe.cli import main

from .conftest import Numbers, numbers

pytestmark = pytest.mark.usefixtures("place")

OPTIONS = "--images images --model smallnet:net --size 16 --iterations 2 --pairs 2 --batch-size 1"
COMMAND = ["audit", "--output", "run", *OPTIONS.split(), "--no-worst-case", "--quiet"]
READS = ("SELECT", "ROLLBACK", "BEGIN", "PRAGMA FOREIGN", "PRAGMA QUICK", "PRAGMA TABLE")


class Disk:
    """Full from the n-th write of a run on, or only then.

    Args:
        left: so many writes have room.
        lasting: whether there is none after that either.
    """

    def __init__(self, left: int, lasting: bool) -> None:
        self.left, self.lasting, self.hit = left, lasting, ""

    def full(self, what: str) -> bool:
        self.left -= 1
        if self.left == 0 or (self.lasting and self.left < 0):
            self.hit = self.hit or what
            return True
        return False

    def write(self, what: str) -> None:
        if self.full(what):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)


class Filling:
    """An open file that writes to such a disk."""

    def __init__(self, file: Any, disk: Disk, name: str) -> None:
        self._file, self._disk, self._name = file, disk, name

    def write(self, content: Any) -> Any:
        self._disk.write(f"write {self._name}")
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def in_run(subject: object) -> bool:
    """Whether a path, or what a number of the system stands for, lies in the run."""
    if isinstance(subject, int):
        subject = os.readlink(f"/proc/self/fd/{subject}")
    return "run" in Path(os.fsdecode(subject)).parts  # type: ignore[arg-type]


def installed(patch: pytest.MonkeyPatch, disk: Disk) -> None:
    """Let all that a run writes go to the disk."""

    def opening(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(subject: object, mode: str = "r", *rest: object, **more: object) -> Any:
            ours = not set(mode).isdisjoint("wax+") and in_run(subject)
            if ours:
                disk.write(f"open {subject}")
            file = real(subject, mode, *rest, **more)
            return Filling(file, disk, str(subject)) if ours else file

        return opened

    def calling(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def called(subject: Any, *rest: Any, **more: Any) -> Any:
            there = name == "mkdir" and Path(subject).exists()  # nothing is made then
            if in_run(subject) and not there:
                disk.write(f"{name} {subject}")
            return real(subject, *rest, **more)

        return called

    class Full(sqlite3.Connection):
        def _write(self, statement: str) -> None:
            if not statement.lstrip().upper().startswith(READS) and disk.full(statement):
                raise sqlite3.OperationalError("database or disk is full")

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            self._write(statement)
            return super().execute(statement, *values)

        def executemany(self, statement: str, values: Sequence[Any], /) -> sqlite3.Cursor:
            self._write(statement)
            return super().executemany(statement, values)

    connect = sqlite3.connect
    patch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Full, **k))
    patch.setattr(io, "open", opening(io.open))
    patch.setattr(os, "fdopen", opening(os.fdopen))
    for name in ("fsync", "replace", "mkdir", "write"):
        patch.setattr(os, name, calling(getattr(os, name), name))


def undisturbed() -> Numbers:
    assert main(["elsewhere" if part == "run" else part for part in COMMAND]) == 0
    return numbers("elsewhere")


def no_room(step: int, lasting: bool, capfd: pytest.CaptureFixture[str]) -> int:
    """How many writes were refused in turn."""
    right, number, met = undisturbed(), step, 0
    capfd.readouterr()
    while True:
        shutil.rmtree("run", ignore_errors=True)
        disk = Disk(number, lasting)
        with pytest.MonkeyPatch.context() as patch:
            installed(patch, disk)
            code = main(COMMAND)
        error = capfd.readouterr().err
        if not disk.hit:
            assert code == 0, error
            return met
        assert code == 2, (disk.hit, code, error)
        assert len(error.splitlines()) == 1, (disk.hit, error)
        assert "No space" in error or "disk is full" in error, (disk.hit, error)
        assert "unexpected" not in error, (disk.hit, error)
        left = [p for p in Path("run").rglob("*") if p.name.startswith(".")]
        assert not left, (disk.hit, left)
        assert main(COMMAND) == 0, (disk.hit, capfd.readouterr().err)
        assert numbers("run") == right, disk.hit
        assert main(["verify", "run", "--arrays-only", "--quiet"]) == 0, disk.hit
        number, met = number + step, met + 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the system for open files")
@pytest.mark.parametrize("lasting", [False, True])
def test_some_writes_without_room(lasting: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert no_room(53, lasting, capfd) >= 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the system for open files")
@pytest.mark.parametrize("lasting", [False, True])
def test_every_write_without_room(lasting: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert no_room(1, lasting, capfd) >= 80


def test_who_could_not_enter_that_he_gave_up_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Store(Path("run"), create=True) as store:
        first, second = Claims(store), Claims(store)
        assert first.take("plan")
        assert not second.take("plan"), "it is at work"
        with monkeypatch.context() as patch:
            patch.setattr(store, "db", None)  # as where the disk is full
            with pytest.raises(AttributeError):
                first.close()
        assert second.take("plan")
        second.close()
        store.db.execute("INSERT INTO claims VALUES ('x', 'gone', 'host', 1, '', 0)")
        write_seal(store)
        assert (Path("run") / NAME).exists(), "nobody is at work"
