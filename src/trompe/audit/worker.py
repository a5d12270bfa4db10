"""One process at work on a run: it plans, claims batches, attacks them and enters the findings."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from trompe.audit.batches import CERTIFICATE, WORST_CASE, Batch, Cell, Pixels, read_images
from trompe.audit.cell import Finding, Worker
from trompe.audit.certified import Certifier
from trompe.audit.claims import Claims
from trompe.audit.findings import put, write_down
from trompe.audit.planning import plan_model, unplanned
from trompe.audit.results import Run
from trompe.audit.settings import Settings
from trompe.audit.source import Source
from trompe.audit.sources import open_source
from trompe.audit.status import Status, status
from trompe.audit.store import Store
from trompe.audit.worst_case import Searcher
from trompe.errors import UsageError
from trompe.kept import tensors_checksum
from trompe.types import LoadedModel

log = logging.getLogger("trompe")

#: Seconds between two looks at what other processes have done.
POLL = 0.5

Watch = Callable[[Status], None]
"""Called now and then with how far the run is."""


class Process:
    """One process at work on a run; it alone writes what its batches gave.

    Args:
        store: of the run.
        device: where to compute.
        watch: called now and then with how far the run is.
    """

    def __init__(self, store: Store, device: str, watch: Watch | None) -> None:
        self.store, self.device, self.watch = store, device, watch
        self.settings = Settings.from_record(store.settings())
        self.source: Source = open_source(self.settings.images)
        self.source.know({row["id"]: row["content"] for row in store.rows("SELECT * FROM images")})
        self.claims = Claims(store)
        self.load = functools.lru_cache(maxsize=1)(self._load)
        self.worker = functools.lru_cache(maxsize=1)(self._worker)

    def _load(self, name: str) -> LoadedModel:
        """A model, the only one in memory."""
        # Models may be large: the one before is let go first, and with it the worker that holds it.
        self.load.cache_clear()
        self.worker.cache_clear()
        run = Run(self.store)
        loaded = run.model(name).load(self.device)
        if tensors_checksum(loaded.model) != run.facts(name)["weights_of"].get(name):
            raise UsageError(
                f"model '{name}' has other weights than '{self.store.folder}' was begun with: let "
                "it always be made with the same ones (a fixed seed, a file), or choose another "
                "folder"
            )
        return loaded

    def _worker(self, model: str, kind: tuple[str, str, str]) -> Worker:
        of = {WORST_CASE: Searcher, CERTIFICATE: Certifier}.get(kind[2], Worker)
        return of(self.settings, self.load(model), kind)

    def tell(self) -> None:
        """Say how far the run is."""
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
            self.tell()

    def take(self, *, model: str | None = None, without: Sequence[int] = ()) -> Batch | None:
        """Claim an open batch; see ``Claims.take_batch``."""
        number = self.claims.take_batch(model=model, without=without)
        if number is None:
            return None
        ((name, *kind),) = self.store.rows(
            "SELECT model, method, smoothing, preset FROM batches WHERE id = ?", (number,)
        )
        rows = self.store.rows(
            "SELECT id, image, target FROM cells WHERE batch = ? AND status != 'done' ORDER BY id",
            (number,),
        )
        return Batch(number, name, (kind[0], kind[1], kind[2]), tuple(Cell(*row) for row in rows))

    def read(self, batch: Batch) -> Pixels:
        """The images of a batch, as its model sees them."""
        loaded = self.load(batch.model)
        return read_images(self.source, batch.cells, loaded.preprocessing)

    def finish(self, batch: Batch, findings: Sequence[Finding]) -> None:
        """Enter what came of a batch, if it is still this process's."""
        entries = [put(self.store.arrays, finding) for finding in findings]
        with self.store.transaction() as db:
            if not self.claims.held(batch.claim):
                log.warning("batch %d was taken over by another process: left to it", batch.id)
                return
            write_down(db, batch.id, entries)
            self.claims.drop(batch.claim)

    def unfinished(self, without: Sequence[int] = ()) -> bool:
        """Whether a batch is left besides some, be it claimed or not."""
        left = self.store.rows("SELECT id FROM batches WHERE done = 0 LIMIT ?", (len(without) + 1,))
        return any(batch not in without for (batch,) in left)

    def work(self) -> None:
        """Work on batches until all are done, by this process or another.

        The images of one batch are read by a thread while the batch before it is attacked.
        """
        with ThreadPoolExecutor(1) as reader:
            ahead: tuple[Batch, Future[Pixels]] | None = None
            while True:
                now = ahead or self._begin(reader, self.take())
                ahead = None
                if now is not None:
                    batch, pixels = now
                    # Of the same model, since only one is to be in memory.
                    ahead = self._begin(reader, self.take(model=batch.model))
                    worker = self.worker(batch.model, batch.kind)
                    self.finish(batch, worker.batch(batch.cells, pixels.result()))
                    del worker, pixels
                    self.tell()
                elif self.unfinished():
                    time.sleep(POLL)
                else:
                    return

    def _begin(
        self, reader: ThreadPoolExecutor, batch: Batch | None
    ) -> tuple[Batch, Future[Pixels]] | None:
        """Let the thread read the images of a batch, if there is one."""
        if batch is None:
            return None
        self.load(batch.model)  # here and not in the thread, which must do nothing but read
        return batch, reader.submit(self.read, batch)


def work_on(
    folder: Path,
    device: str = "cpu",
    watch: Watch | None = None,
    make: Callable[[Store, str, Watch | None], Process] = Process,
) -> None:
    """Do what is missing of a run that was begun, in this process.

    Args:
        folder: of the run.
        device: where to compute.
        watch: called now and then with how far the run is.
        make: the process that does it.

    Raises:
        TrompeError: if the run, its images or a model cannot be used.
    """
    with Store(folder) as store:
        store.note_start(os.getpid())
        process = make(store, device, watch)
        try:
            process.plan()
            process.work()
        finally:
            process.claims.close()
