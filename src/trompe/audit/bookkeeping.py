"""What a run notes about itself beside its results: only what trompe writes is a run's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from trompe.audit.store import Store

_KEYS = {"schema", "settings", "began"}


def bookkeeping_problems(store: Store) -> Iterator[str]:
    """What no process that worked on a run would have noted, in words."""
    keys = {row[0] for row in store.rows("SELECT key FROM meta")}
    if keys != _KEYS:
        yield f"it notes other facts than a run has ({', '.join(sorted(keys ^ _KEYS))})"
    starts = store.rows("SELECT id, began, pid, versions FROM starts ORDER BY id")
    if [row["id"] for row in starts] != list(range(1, len(starts) + 1)):
        yield "the record of a start is missing"
    for row in starts:
        if not _number(row["began"]) or not isinstance(row["pid"], int):
            yield f"the record of start {row['id']} is none"
        elif software(row["versions"]) is None:
            yield f"the record of start {row['id']} names no software"
    parts = [row[0] for row in store.rows("SELECT DISTINCT part FROM screens ORDER BY part")]
    if parts != list(range(1, len(parts) + 1)):
        yield "a part of the classes of images is missing"
    if store.rows("SELECT 1 FROM screens WHERE usable NOT IN (0, 1) LIMIT 1"):
        yield "an image is neither usable nor not"
    if store.rows("SELECT 1 FROM batches WHERE done NOT IN (0, 1) LIMIT 1"):
        yield "a batch is neither done nor not"
    for row in store.rows("SELECT id, tries, finished FROM cells WHERE status != 'open'"):
        if not isinstance(row["tries"], int) or not 1 <= row["tries"] <= max(1, len(starts)):
            yield f"cell {row['id']} was tried more often than the run was started"
        if not _number(row["finished"]):
            yield f"cell {row['id']} has no time at which it was finished"


def _number(value: object) -> bool:
    return isinstance(value, (int, float))


def software(text: object) -> dict[str, Any] | None:
    """The versions that a start notes; ``None`` if they are none."""
    try:
        found = json.loads(str(text))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
