"""Who works on what: claims with a lease, so that processes share a run without harm."""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence

from trompe.audit.processes import alive, born
from trompe.audit.store import Store, plainly
from trompe.errors import TrompeError

#: Seconds after which the claim of a process on another machine counts as given up.
LEASE = 180.0
#: Seconds between two signs of life.
HEARTBEAT = 20.0

_AT_WORK: set[str] = set()
"""The owners of this process that did not give up their claims."""


def claim_of(batch: int) -> str:
    """What the claim of a batch is called."""
    return f"batch {batch}"


def given_up(claim: sqlite3.Row) -> bool:
    """Whether a row of the claims is of a worker that will not go on."""
    if claim["until"] < time.time():
        return True
    if claim["host"] != socket.gethostname():
        return False
    if (claim["pid"], claim["born"]) == (os.getpid(), born(os.getpid())):
        # As one that met a full disk could not enter that it gave up, and its process lives on.
        return claim["owner"] not in _AT_WORK
    return not alive(claim["pid"], claim["born"])


class Claims:
    """The claims of one worker; a thread of its own keeps them alive until ``close``.

    Args:
        store: of the run.
        lease: seconds that a claim lasts without a sign of life.
        heartbeat: seconds between two signs of life.
    """

    def __init__(self, store: Store, lease: float = LEASE, heartbeat: float = HEARTBEAT) -> None:
        self.store, self.lease = store, lease
        self.owner = secrets.token_hex(8)
        self._me = (self.owner, socket.gethostname(), os.getpid(), born(os.getpid()))
        _AT_WORK.add(self.owner)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True)
        self._thread.start()

    def _beat(self, heartbeat: float) -> None:
        while not self._ended.wait(heartbeat):
            try:
                # A connection of its own: one must not be shared by two threads at work.
                with Store(self.store.folder) as own, own.transaction() as db:
                    db.execute(
                        "UPDATE claims SET until = ? WHERE owner = ?",
                        (time.time() + self.lease, self.owner),
                    )
            except TrompeError:
                continue  # the worker itself will meet the problem and report it

    def close(self) -> None:
        """Give up all claims."""
        self._ended.set()
        self._thread.join()
        _AT_WORK.discard(self.owner)
        # Also of a run that was moved meanwhile: where it went, nobody is to wait for this one.
        with plainly(self.store.path):
            self.store.db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))

    def _free(self, work: str) -> bool:
        """Whether nobody works on it; within a transaction."""
        found = self.store.db.execute("SELECT * FROM claims WHERE work = ?", (work,)).fetchone()
        return found is None or (found["owner"] != self.owner and given_up(found))

    def _take(self, work: str) -> None:
        until = time.time() + self.lease
        self.store.db.execute(
            "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)", (work, *self._me, until)
        )

    def take(self, work: str) -> bool:
        """Claim ``work``; false if another worker has it."""
        with self.store.transaction():
            if not self._free(work):
                return False
            self._take(work)
            return True

    def take_batch(self, *, model: str | None = None, without: Sequence[int] = ()) -> int | None:
        """Claim the first open batch that nobody works on; ``None`` if there is none.

        Args:
            model: for one to be worked on later, the name of its model: none is claimed while it
                might be the next for another worker who has nothing else to do.
            without: batches that are left alone.
        """
        with self.store.transaction() as db:
            if model is not None and not self._to_spare():
                return None
            found = db.execute("SELECT id, model FROM batches WHERE done = 0 ORDER BY id")
            for batch, of in found:
                fits = batch not in without and model in (None, of)
                if fits and self._free(claim_of(batch)):
                    self._take(claim_of(batch))
                    return int(batch)
        return None

    def _to_spare(self) -> bool:
        """Whether more batches are unclaimed than there are other workers."""

        def count(query: str, *values: str) -> int:
            return int(self.store.db.execute(query, values).fetchone()[0])

        claimed = count("SELECT COUNT(*) FROM claims WHERE work LIKE 'batch %'")
        others = count("SELECT COUNT(DISTINCT owner) FROM claims WHERE owner != ?", self.owner)
        return count("SELECT COUNT(*) FROM batches WHERE done = 0") - claimed > others

    def held(self, work: str) -> bool:
        """Whether the claim is still this worker's; within a transaction."""
        found = self.store.db.execute("SELECT owner FROM claims WHERE work = ?", (work,)).fetchone()
        return found is not None and found[0] == self.owner

    def drop(self, work: str) -> None:
        """Give ``work`` up; within a transaction."""
        self.store.db.execute("DELETE FROM claims WHERE work = ? AND owner = ?", (work, self.owner))
