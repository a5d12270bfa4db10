"""What came of cells, entered into the run."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trompe.audit import chain
from trompe.audit.arrays import ArrayStore
from trompe.audit.cell import Finding


@dataclass(frozen=True)
class Entry:
    """A finding whose arrays are on the disk: what the store is told of it."""

    cell: int
    message: str | None
    flags: str
    x: str | None = None
    target_x: str | None = None
    arrays: str | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)


def storable(value: float) -> float | None:
    """``value`` for SQLite, which has no NaN and no infinity that JSON could read."""
    return value if math.isfinite(value) else None


def put(arrays: ArrayStore, finding: Finding) -> Entry:
    """Write the arrays of a finding.

    Raises:
        OutputError: if they cannot be written.
        StoreError: if a file is there with another content.
    """
    flags = json.dumps(list(finding.flags))
    if finding.x is None or finding.target_x is None:
        return Entry(finding.cell, finding.message, flags)
    return Entry(
        finding.cell,
        finding.message,
        flags,
        x=arrays.put({"x": finding.x}),
        target_x=arrays.put({"x": finding.target_x}),
        arrays=arrays.put(finding.arrays),
        values={name: storable(value) for name, value in finding.values.items()},
    )


def write_down(db: sqlite3.Connection, batch: int, entries: Sequence[Entry]) -> None:
    """Enter what came of a whole batch; within a transaction."""
    now = time.time()
    for entry in entries:
        db.execute(
            "UPDATE cells SET status = ?, tries = tries + 1, message = ?, flags = ?, x = ?, "
            "target_x = ?, arrays = ?, finished = ? WHERE id = ?",
            (
                "done" if entry.message is None else "error",
                entry.message,
                entry.flags,
                entry.x,
                entry.target_x,
                entry.arrays,
                now,
                entry.cell,
            ),
        )
        db.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)",
            ((entry.cell, name, value) for name, value in entry.values.items()),
        )
    db.execute("UPDATE batches SET done = 1 WHERE id = ?", (batch,))
    chain.link(db, f"batch:{batch}")


def reopen(db: sqlite3.Connection, *, most: int | None) -> int:
    """Have failed cells tried again; within a transaction.

    Args:
        db: of the run.
        most: cells that were tried so often are left alone; ``None`` for all of them.

    Returns:
        How many batches are open again.
    """
    return db.execute(
        "UPDATE batches SET done = 0 WHERE done = 1 AND id IN (SELECT batch FROM cells WHERE "
        "status = 'error' AND (?1 IS NULL OR tries < ?1))",
        (most,),
    ).rowcount
