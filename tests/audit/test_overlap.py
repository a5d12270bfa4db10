"""Images are read while the batch before is attacked, and no more of them than one batch."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from torch import Tensor

from trompe.audit import open_run, run_audit
from trompe.audit.cell import Worker
from trompe.audit.claims import Claims
from trompe.audit.sources import Files
from trompe.audit.store import Store
from trompe.audit.worker import Process
from trompe.types import Preprocessing

from .conftest import begun, small

pytestmark = pytest.mark.usefixtures("place")


def test_a_thread_reads_one_batch_ahead_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun(pairs=6)
    with Store(Path("run")) as store:
        process = Process(store, "cpu", None)
        process.plan()  # which looks at images as well, in this thread
        process.claims.close()
    read: list[int] = []
    seen: list[int] = []
    ahead = threading.Event()
    pixels, batch = Files.pixels, Worker.batch

    def reading(self: Files, index: int, how: Preprocessing) -> Tensor:
        assert threading.current_thread() is not threading.main_thread()
        read.append(index)
        if len(read) == 8:  # two batches of two pairs
            ahead.set()
        return pixels(self, index, how)

    def attacking(self: Worker, *arguments: object) -> object:
        if not seen:
            assert ahead.wait(30), "the second batch is read while the first is attacked"
        seen.append(len(read))
        return batch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Files, "pixels", reading)
    monkeypatch.setattr(Worker, "batch", attacking)
    assert run_audit("run", small(pairs=6)).complete
    assert seen[0] == 8
    assert seen[2] == len(read) == 12


def test_an_image_that_broke_after_planning_fails_its_own_cell_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Process.work

    def breaking(self: Process) -> None:
        Path("images/i0003.png").write_bytes(b"no image")
        work(self)

    monkeypatch.setattr(Process, "work", breaking)
    status = run_audit("run", small(pairs=6, batch_size=3))
    assert (status.done, status.errors) == (5, 1)
    (failed,) = (row for row in open_run("run").rows if row.message)
    assert "i0003.png" in failed.pair
    assert "i0003.png" in (failed.message or "")


def test_no_batch_is_claimed_ahead_while_another_worker_might_need_it() -> None:
    begun()
    with Store(Path("run")) as store, Store(Path("run")) as other:
        with store.transaction() as db:
            db.executemany("INSERT INTO batches (model) VALUES (?)", [("m",)] * 4)
        first, second = Claims(store), Claims(other)
        assert (first.take_batch(), second.take_batch()) == (1, 2)
        assert first.take_batch(model="another") is None
        assert first.take_batch(model="m") == 3
        assert second.take_batch(model="m") is None, "the last one is left to who is free first"
        assert second.take_batch(without=(4,)) is None
        assert second.take_batch() == 4
        first.close()
        second.close()


def test_what_a_batch_gave_is_not_entered_once_another_process_has_it() -> None:
    begun()
    with Store(Path("run")) as store:
        process = Process(store, "cpu", None)
        process.plan()
        batch = process.take()
        assert batch is not None
        findings = process.worker(batch.model, batch.kind).batch(batch.cells, process.read(batch))
        with store.transaction() as db:  # its lease was over, and another took it
            db.execute("UPDATE claims SET owner = 'another' WHERE work = ?", (batch.claim,))
        process.finish(batch, findings)
        (left,) = store.rows("SELECT COUNT(*) FROM cells WHERE status != 'open'")
        (done,) = store.rows("SELECT done FROM batches WHERE id = ?", (batch.id,))
        (claim,) = store.rows("SELECT owner FROM claims WHERE work = ?", (batch.claim,))
        assert (left[0], done[0], claim[0]) == (0, 0, "another")
        with store.transaction() as db:
            db.execute("UPDATE claims SET owner = ?", (process.claims.owner,))
        process.finish(batch, findings)
        (left,) = store.rows("SELECT COUNT(*) FROM cells WHERE status != 'open'")
        assert left[0] == len(batch.cells)
        process.claims.close()
