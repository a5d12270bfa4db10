"""Checksums that cover every row that counts, chained into the digest of the run.

Whatever is entered (settings, images, the class given to each, the plan, what came of a batch, who
worked) is a *subject*. Each entry of the chain holds the checksum of a subject's rows and a digest
of itself and the entry before; the last digest is that of the run. What is changed afterwards, be
it by a bit that fell over or by hand, no longer has the checksum in the chain. Who rewrites the
chain as well gets another digest than the one that was printed, and numbers that ``trompe verify``
does not find again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

#: Per kind of subject: what is covered, in one order. ``?`` is what follows the colon, as often.
_ROWS: dict[str, tuple[str, ...]] = {
    "settings": ("SELECT key, value FROM meta ORDER BY key",),
    "images": ("SELECT id, name, label, content FROM images ORDER BY id",),
    "screens": (
        "SELECT model, image, class, usable, problem, part FROM screens WHERE part = ? "
        "ORDER BY model, image",
    ),
    "plan": (
        "SELECT model, pairs FROM planned WHERE model = ?",
        "SELECT id, model, method, smoothing, preset FROM batches WHERE model = ? ORDER BY id",
        "SELECT id, batch, model, method, smoothing, preset, image, target FROM cells "
        "WHERE model = ? ORDER BY id",
    ),
    "batch": (
        "SELECT id, batch, status, tries, message, flags, x, target_x, arrays, finished "
        "FROM cells WHERE batch = ? ORDER BY id",
        "SELECT cell, name, value FROM metrics WHERE cell IN (SELECT id FROM cells WHERE "
        "batch = ?) ORDER BY cell, name",
    ),
    "start": ("SELECT id, began, pid, versions FROM starts WHERE id = ?",),
}


def checksum(value: Any) -> str:
    """The checksum of anything that JSON can hold; numbers exactly, keys in one order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def content(db: sqlite3.Connection, subject: str) -> str:
    """The checksum of the rows of a subject, as they are now."""
    kind, _, key = subject.partition(":")
    found = []
    for query in _ROWS[kind]:
        rows = db.execute(query, (key,) * query.count("?"))
        found.append([list(row) for row in rows])
    return checksum([kind, found])


def _digest(before: str, number: int, subject: str, covered: str) -> str:
    return checksum([before, number, subject, covered])


def head(db: sqlite3.Connection) -> tuple[int, str]:
    """Number and digest of the last entry: the state of the run; 0 and nothing if there is none."""
    found = db.execute("SELECT id, digest FROM chain ORDER BY id DESC LIMIT 1").fetchone()
    return (0, "") if found is None else (int(found[0]), str(found[1]))


def link(db: sqlite3.Connection, subject: str) -> None:
    """Cover the rows of a subject as they are now; within the transaction that changed them."""
    number, before = head(db)
    covered = content(db, subject)
    digest = _digest(before, number + 1, subject, covered)
    db.execute("INSERT INTO chain VALUES (?, ?, ?, ?)", (number + 1, subject, covered, digest))


def digests(db: sqlite3.Connection) -> dict[str, int]:
    """All states that the run was in, and the number of the entry that led to each."""
    return {row[1]: int(row[0]) for row in db.execute("SELECT id, digest FROM chain")}


def latest(db: sqlite3.Connection) -> dict[str, int]:
    """The number of the last entry about each subject."""
    rows = db.execute("SELECT subject, MAX(id) FROM chain GROUP BY subject")
    return {row[0]: int(row[1]) for row in rows}


def _expected(db: sqlite3.Connection) -> Iterator[str]:
    """The subjects that must be in the chain, given the rows there are."""
    if db.execute("SELECT 1 FROM meta WHERE key = 'settings'").fetchone():
        yield "settings"
    if db.execute("SELECT 1 FROM images LIMIT 1").fetchone():
        yield "images"
    for kind, query in (
        ("screens", "SELECT DISTINCT part FROM screens"),
        ("plan", "SELECT DISTINCT model FROM planned UNION SELECT DISTINCT model FROM cells"),
        ("batch", "SELECT id FROM batches WHERE done != 0"),
        ("batch", "SELECT DISTINCT batch FROM cells WHERE status != 'open'"),
        ("batch", "SELECT DISTINCT batch FROM cells JOIN metrics ON cell = id"),
        ("start", "SELECT id FROM starts"),
    ):
        for row in db.execute(query):
            yield f"{kind}:{row[0]}"


def _in_words(db: sqlite3.Connection, subject: str) -> str:
    kind, _, key = subject.partition(":")
    if kind == "batch":
        cells = [str(row[0]) for row in db.execute("SELECT id FROM cells WHERE batch = ?", (key,))]
        return f"what came of the cells {', '.join(cells)} (batch {key})"
    return {
        "settings": "the settings",
        "images": "the list of images",
        "screens": f"the classes of images, part {key}",
        "plan": f"the plan for {key}",
        "start": f"the record of start {key}",
    }.get(kind, f"'{subject}'")


def problems(db: sqlite3.Connection) -> list[str]:
    """What is not as it was entered, in words; nothing if all is."""
    found, before, last = [], "", {}
    for place, row in enumerate(db.execute("SELECT * FROM chain ORDER BY id"), start=1):
        number, subject, covered, digest = row
        if number != place or digest != _digest(before, number, subject, covered):
            found.append(f"the chain of checksums is broken at its entry {place}")
            break
        before, last[subject] = digest, covered
    for subject, covered in last.items():
        if subject.partition(":")[0] not in _ROWS or content(db, subject) != covered:
            found.append(f"{_in_words(db, subject)} is not as it was entered")
    missing = dict.fromkeys(s for s in _expected(db) if s not in last)
    found += [f"{_in_words(db, subject)} was entered by somebody else" for subject in missing]
    return found
