"""Running the command line in this process, in an empty directory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from trompe.cli import main


class Ran(NamedTuple):
    """What a command left on the screen."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    log = logging.getLogger("trompe")
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers, log.level = handlers, level


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``trompe`` with the given arguments."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture
def refused(run: Run, folder: Path) -> Callable[..., str]:
    """Runs ``trompe``, which must complain in one line and write nothing; returns the line."""

    def refused(*arguments: object) -> str:
        before = sorted(folder.rglob("*"))
        code, out, err = run(*arguments)
        lines = err.splitlines()
        assert code == 2, err
        assert out == ""
        assert len(lines) == 1, err
        assert lines[0].startswith("trompe: ")
        after = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
        assert after == before
        return lines[0]

    return refused
