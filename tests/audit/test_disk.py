"""A full disk ends a run with one clear line; with room again it goes on, and nothing is lost."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from trompe.audit import open_run, run_audit
from trompe.audit.store import FILE
from trompe.cli import main
from trompe.errors import StoreError

from .conftest import numbers, small

pytestmark = pytest.mark.usefixtures("place")

PAIRS = 12
OPTIONS = "audit --output run --images images --model smallnet:net --size 16 --iterations 10"
COMMAND = [
    *(sys.executable, "-m", "trompe"),
    *OPTIONS.split(),
    *("--pairs", str(PAIRS), "--batch-size", "2", "--no-worst-case", "--quiet"),
]


def limited(largest: int) -> subprocess.CompletedProcess[str]:
    """Run the command where no file may become larger than ``largest`` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    return subprocess.run(
        COMMAND,
        preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def whole() -> None:
    """Nothing half-written: every array is what its name says, no other file is there."""
    for path in Path("run/arrays").rglob("*"):
        if path.is_file():
            assert path.suffix == ".safetensors", path
            open_run("run").store.arrays.get(path.stem)


@pytest.mark.slow
def test_no_room_at_any_point_ends_with_one_line_and_the_run_goes_on() -> None:
    ended = 0
    # From no room for the tables, over none for an array, to none for what is found.
    for largest in (0, 3000, 6000, 40_000, 90_000, 120_000, 160_000, 250_000):
        found = limited(largest)
        if found.returncode:
            ended += 1
            assert found.returncode == 2, found.stderr
            assert "Traceback" not in found.stderr
            assert "make room" in found.stderr.splitlines()[-1]
        if (Path("run") / FILE).exists() and Path("run/arrays").exists():
            whole()
    assert ended >= 3
    done = limited(2**40)
    assert done.returncode == 0, done.stderr
    undisturbed = ["undisturbed" if part == "run" else part for part in COMMAND]
    subprocess.run(undisturbed, check=True, timeout=120)
    assert len(numbers("run")) == PAIRS
    assert numbers("run") == numbers("undisturbed")


def test_a_store_cut_down_to_nothing_is_no_new_run() -> None:
    run_audit("run", small())
    for leftover in Path("run").glob(f"{FILE}-*"):
        leftover.unlink()
    (Path("run") / FILE).write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        run_audit("run", small())
    assert (Path("run") / FILE).read_bytes() == b""


@pytest.mark.slow
def test_a_store_damaged_anywhere_gives_one_line_and_stays_as_it_is(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_audit("run", small())
    path, draw = Path("run") / FILE, random.Random(0)
    content = path.read_bytes()
    assert not list(Path("run").glob(f"{FILE}-*")), "closed: all is in the one file"
    refused = 0
    for _ in range(60):
        start, length = draw.randrange(len(content)), draw.choice((1, 20, 500, 4096))
        damaged = bytearray(content)
        damaged[start : start + length] = draw.randbytes(length)
        damaged = damaged[: len(content)]
        for command in (["audit", "--status", "--output", "run"], ["verify", "run", "--quiet"]):
            path.write_bytes(damaged)
            code = main(command)
            error = capfd.readouterr().err
            assert code in (0, 2), (start, length, command, error)
            assert "Traceback" not in error, (start, length, command, error)
            if code == 2 and "damaged" in error:
                refused += 1
                assert len(error.splitlines()) == 1, error
                assert path.read_bytes() == damaged
    assert refused > 10
