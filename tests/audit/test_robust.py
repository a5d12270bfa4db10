"""Killed processes, and several at once, leave the run as one undisturbed process would."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trompe.audit import open_run, run_audit
from trompe.audit.claims import Claims
from trompe.audit.store import Store
from trompe.errors import TrompeError

from .conftest import begun, numbers, small, write_images

pytestmark = pytest.mark.usefixtures("place")

PROGRAM = """
import logging, sys, torch
torch.set_num_threads(1)
from trompe.audit.worker import work_on
from pathlib import Path
work_on(Path("run"))
"""


def started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def done() -> int:
    try:
        return len(open_run("run").rows)
    except TrompeError:
        return 0


def killed_at_random(times: int, **changes: object) -> None:
    draw = random.Random(0)
    begun(**changes)
    for _ in range(times):
        before, process = done(), started()
        limit = time.monotonic() + 60
        # Importing takes most of the time: wait for a sign of work, then a random moment.
        while process.poll() is None and time.monotonic() < limit and done() <= before:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_audit("run", small(**changes)).complete
    run_audit("undisturbed", small(**changes))
    assert numbers("run") == numbers("undisturbed")


def test_killed_twice_and_gone_on_gives_what_an_undisturbed_run_gives() -> None:
    killed_at_random(2, pairs=20, iterations=20)


@pytest.mark.slow
def test_killed_ten_times_gives_what_an_undisturbed_run_gives() -> None:
    killed_at_random(10, pairs=100, iterations=20, methods=("gradient", "lrp"))


def test_two_processes_share_a_run() -> None:
    begun(pairs=16, iterations=20)
    processes = [started(), started()]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    run = open_run("run")
    assert run.status.complete
    assert [tuple(row) for row in run.store.rows("SELECT COUNT(*) FROM starts")] == [(2,)]
    run_audit("undisturbed", small(pairs=16, iterations=20))
    assert numbers("run") == numbers("undisturbed")


@pytest.mark.slow
def test_one_of_two_processes_killed() -> None:
    begun(pairs=60, iterations=20)
    first, second = started(), started()
    while done() < 10:
        time.sleep(0.05)
    first.kill()
    assert first.wait() != 0
    assert second.wait(timeout=120) == 0
    run_audit("undisturbed", small(pairs=60, iterations=20))
    assert numbers("run") == numbers("undisturbed")


@pytest.mark.slow
def test_workers_give_what_one_process_gives() -> None:
    assert run_audit("run", small(pairs=20), workers=2).complete
    run_audit("undisturbed", small(pairs=20))
    assert numbers("run") == numbers("undisturbed")


def test_a_claim_is_free_again_when_its_process_has_ended_or_its_lease_is_over() -> None:
    begun()
    with Store(Path("run")) as store, Store(Path("run")) as other:
        first, second = Claims(store), Claims(other, lease=0.0)
        assert first.take("something")
        assert not second.take("something")
        assert second.take("else")
        assert first.take("else"), "the lease of the other is over"
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        with store.transaction() as db:
            db.execute("UPDATE claims SET pid = ? WHERE work = 'something'", (gone.pid,))
        assert second.take("something"), "its process has ended"
        first.close()
        second.close()
        assert not store.rows("SELECT * FROM claims")


@pytest.mark.slow
def test_one_corrupt_image_among_a_thousand() -> None:
    write_images(Path("many"), 1000)
    Path("many/i0500.png").write_bytes(b"\x89PNG nonsense")
    # The first 500 pairs are disjoint: every image is looked at.
    settings = small(images="many", pairs=500, iterations=1, batch_size=50, recovery=())
    status = run_audit("run", settings)
    assert (status.corrupt, status.errors) == (1, 0)
    assert status.done == status.cells == 500
