"""Files are written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trompe.atomic import atomic_path
from trompe.errors import OutputError


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_the_system_refuses_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nowhere" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OutputError, match=path.name), atomic_path(path) as temporary:
            temporary.write_text("new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(sorted(os.listdir(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert len(synced) == 2
    assert "a.txt" not in synced[0]
    assert synced[1] == ["a.txt"]


KILLED = """
import os, signal, sys
from trompe.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    (tmp_path / ".0123456789abcdef.b.txt").write_text("of another file")
    with atomic_path(path) as one:
        assert not (tmp_path / left).exists()
        with atomic_path(path) as other:  # as another process would, at the same time
            other.write_text("second")
        one.write_text("first")
    assert path.read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == [".0123456789abcdef.b.txt", "a.txt"]
