"""Doing what is missing of a run, in this process or in several."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from trompe.audit.claims import Claims
from trompe.audit.planning import plan_model, unplanned
from trompe.audit.settings import Settings, model_key
from trompe.audit.sources import Source, open_source
from trompe.audit.status import Status, status
from trompe.audit.store import Store
from trompe.audit.work import Cell, Worker, write_down
from trompe.errors import TrompeError, UsageError
from trompe.types import LoadedModel

log = logging.getLogger("trompe")

#: Seconds between two looks at what other processes have done.
POLL = 0.5

Watch = Callable[[Status], None]
"""Called now and then with how far the run is."""


class _Process:
    """One process at work on a run."""

    def __init__(self, store: Store, device: str, watch: Watch | None) -> None:
        self.store, self.device, self.watch = store, device, watch
        self.settings = Settings.from_record(store.settings())
        self.source: Source = open_source(self.settings.images)
        self.claims = Claims(store)
        # Models may be large: only the last one is held.
        self.load = functools.lru_cache(maxsize=1)(self._load)

    def _load(self, name: str) -> LoadedModel:
        spec = next(model for model in self.settings.models if model_key(model) == name)
        return spec.load(self.device)

    def _tell(self) -> None:
        if self.watch is not None:
            self.watch(status(self.store))

    def plan(self) -> None:
        """Enter the cells, or wait until another process has done so."""
        while waiting := unplanned(self.store, self.settings):
            for name in waiting:
                if not self.claims.take("plan"):
                    time.sleep(POLL)
                    continue
                try:
                    plan_model(self.store, self.settings, self.source, self.load(name), name)
                finally:
                    with self.store.transaction():
                        self.claims.drop("plan")
            self._tell()

    def work(self) -> None:
        """Work on batches until all are done, by this process or another."""
        while True:
            batch = self.claims.take_batch()
            if batch is not None:
                self._work_on(batch)
                self._tell()
            elif self.store.rows("SELECT 1 FROM batches WHERE done = 0 LIMIT 1"):
                time.sleep(POLL)
            else:
                return

    def _work_on(self, batch: int) -> None:
        ((model, *kind),) = self.store.rows(
            "SELECT model, method, smoothing, preset FROM batches WHERE id = ?", (batch,)
        )
        rows = self.store.rows(
            "SELECT id, image, target FROM cells WHERE batch = ? ORDER BY id", (batch,)
        )
        worker = Worker(
            self.store, self.settings, self.source, self.load(model), (kind[0], kind[1], kind[2])
        )
        findings = worker.batch([Cell(*row) for row in rows])
        with self.store.transaction() as db:
            if not self.claims.held(f"batch {batch}"):
                log.warning("batch %d was taken over by another process: left to it", batch)
                return
            write_down(db, batch, findings)
            self.claims.drop(f"batch {batch}")


def work_on(folder: Path, device: str = "cpu", watch: Watch | None = None) -> None:
    """Do what is missing of a run that was begun, in this process.

    Raises:
        TrompeError: if the run, its images or a model cannot be used.
    """
    with Store(folder) as store:
        store.note_start(os.getpid())
        process = _Process(store, device, watch)
        try:
            process.plan()
            process.work()
        finally:
            process.claims.close()


def _child(folder: Path, device: str, threads: int) -> None:
    """The body of a worker process."""
    torch.set_num_threads(threads)
    try:
        work_on(folder, device)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except TrompeError as error:
        logging.getLogger("trompe").error("%s", error)
        raise SystemExit(2) from error


def run_audit(
    folder: str | Path,
    settings: Settings,
    *,
    device: str = "cpu",
    workers: int = 1,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Status:
    """Attack every cell of an audit that is not done yet.

    May be ended at any moment and started again with the same settings; may be started several
    times at once, by one or several processes.

    Args:
        folder: of the run; made if it is not there.
        settings: what is to be done; the same every time.
        device: where to compute.
        workers: processes on this machine.
        threads: of each; by default torch's choice, shared by the workers.
        watch: called now and then with how far the run is.

    Returns:
        How far the run is.

    Raises:
        UsageError: if the folder was begun with other settings.
        StoreError: if it is damaged.
        OutputError: if it cannot be written.
    """
    folder = Path(folder)
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    source = open_source(settings.images)
    record = settings.recorded(source)
    with Store(folder, create=True) as store:
        store.agree(record, [(source.name(i), source.label(i)) for i in range(len(source))])
        if workers > 1:
            _several(folder, device, workers, threads, store, watch)
        else:
            if threads is not None:
                torch.set_num_threads(threads)
            work_on(folder, device, watch)
        return status(store)


def _several(
    folder: Path, device: str, workers: int, threads: int | None, store: Store, watch: Watch | None
) -> None:
    """Let processes work, and tell how far they are."""
    each = threads or max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_child, args=(folder, device, each), daemon=True)
        for _ in range(workers)
    ]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        time.sleep(POLL)
        if watch is not None:
            watch(status(store))
    failed = [child.exitcode for child in children if child.exitcode]
    if failed and status(store).open:
        raise TrompeError(
            f"{len(failed)} of {workers} workers ended early (exit code {failed[0]}): start the "
            "same command again, it goes on where it was"
        )
