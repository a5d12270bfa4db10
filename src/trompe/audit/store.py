"""The SQLite file of a run: settings, images, cells and metrics."""

from __future__ import annotations

import json
import logging
import platform
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import trompe
from trompe.audit.arrays import ArrayStore
from trompe.audit.settings import differences
from trompe.errors import OutputError, StoreError, UsageError

log = logging.getLogger("trompe")

FILE = "run.sqlite"
SCHEMA = "1"
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE starts (began REAL, pid INTEGER, versions TEXT);
CREATE TABLE claims (work TEXT PRIMARY KEY, owner TEXT, host TEXT, pid INTEGER, born TEXT,
                     until REAL);
CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT, label INTEGER, problem TEXT);
CREATE TABLE screens (model TEXT, image INTEGER, class INTEGER, usable INTEGER,
                      PRIMARY KEY (model, image));
CREATE TABLE planned (model TEXT PRIMARY KEY, pairs INTEGER);
CREATE TABLE batches (id INTEGER PRIMARY KEY, model TEXT, method TEXT, smoothing TEXT, preset TEXT,
                      done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX open_batches ON batches (done, id);
CREATE TABLE cells (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL REFERENCES batches (id),
                    model TEXT, method TEXT, smoothing TEXT, preset TEXT, image INTEGER,
                    target INTEGER, status TEXT NOT NULL DEFAULT 'open', message TEXT, flags TEXT,
                    x TEXT, target_x TEXT, arrays TEXT, finished REAL,
                    UNIQUE (model, method, smoothing, preset, image, target));
CREATE INDEX cells_of_batch ON cells (batch);
CREATE TABLE metrics (cell INTEGER REFERENCES cells (id), name TEXT, value REAL,
                      PRIMARY KEY (cell, name)) WITHOUT ROWID;
"""


def versions() -> dict[str, str]:
    """The software that makes the results."""
    import numpy
    import safetensors
    import torchvision

    return {
        "trompe": trompe.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
        "sqlite": sqlite3.sqlite_version,
        "platform": platform.platform(),
    }


@contextmanager
def plainly(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that names the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "disk is full" in text or "disk I/O" in text or "unable to open" in text:
            raise OutputError(
                f"cannot write '{path}': {text}: make room and start the same command again, it "
                "goes on where it was"
            ) from error
        if "readonly" in text or "locked" in text:
            raise OutputError(f"cannot write '{path}': {text}: try again later") from error
        raise StoreError(
            f"the run's store '{path}' is damaged ({text}): it was left as it is; restore it from "
            "a copy, or choose another folder"
        ) from error


class Store:
    """One connection to a run's SQLite file, and its arrays beside it.

    Args:
        folder: of the run.
        create: make the file if it is not there.

    Raises:
        StoreError: if it is missing (and not to be made), damaged, or from another version.
        OutputError: if it cannot be written.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder, self.path = folder, folder / FILE
        self.arrays = ArrayStore(folder / "arrays")
        fresh = not self.path.exists()
        if fresh and not create:
            raise StoreError(f"'{folder}' holds no run ({FILE} is missing): name its folder")
        if fresh:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make '{folder}': {error.strerror}") from error
        with plainly(self.path):
            self.db = sqlite3.connect(
                self.path, timeout=120, isolation_level=None, check_same_thread=False
            )
            self.db.row_factory = sqlite3.Row
            self._open(create)

    def _open(self, create: bool) -> None:
        # The check comes first: nothing is written into a damaged file.
        found = self.db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        # In this order: another process may be making both.
        if self.arrays.folder.exists() and not self._tables():
            raise StoreError(
                f"the run's store '{self.path}' is empty although its arrays are there: restore it "
                "from a copy, or choose another folder"
            )
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        with self.transaction():
            tables = self._tables()
            if "meta" not in tables:
                if tables or not create:
                    raise StoreError(f"'{self.path}' is no run of trompe: choose another folder")
                for statement in _TABLES.split(";"):
                    self.db.execute(statement)
                self.set("schema", SCHEMA)
        if self.get("schema") != SCHEMA:
            raise StoreError(
                f"'{self.path}' was written by another version of trompe (format "
                f"{self.get('schema')}, this one reads {SCHEMA}): use that one"
            )

    def _tables(self) -> set[str]:
        return {row[0] for row in self.db.execute("SELECT name FROM sqlite_master")}

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything within is written, or nothing; no other process writes meanwhile."""
        with plainly(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The result of a query: rows to be read by position or by the column's name."""
        with plainly(self.path):
            return self.db.execute(query, values).fetchall()

    def set(self, key: str, value: str) -> None:
        """Keep a fact about the run."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def get(self, key: str) -> str | None:
        """A fact about the run."""
        found = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def agree(self, record: Mapping[str, Any], names: Sequence[tuple[str, int | None]]) -> None:
        """Write the settings down, or compare them with those the run was begun with.

        Args:
            record: of the settings.
            names: name and label of every image.

        Raises:
            UsageError: if they differ; the message lists the differences.
        """
        with self.transaction():
            known = self.get("settings")
            if known is None:
                self.set("settings", json.dumps(record, sort_keys=True))
                self.set("began", str(time.time()))
                self.db.executemany(
                    "INSERT INTO images (id, name, label) VALUES (?, ?, ?)",
                    ((i, name, label) for i, (name, label) in enumerate(names)),
                )
        if known is not None and (changed := differences(self.settings(), record)):
            raise UsageError(
                f"'{self.folder}' was begun with other settings: {'; '.join(changed)}: choose "
                "another folder, or the same settings"
            )

    def settings(self) -> dict[str, Any]:
        """The settings that the run was begun with.

        Raises:
            StoreError: if there are none.
        """
        text = self.get("settings")
        if text is None:
            raise StoreError(f"'{self.path}' holds no settings: the run was never begun")
        try:
            record: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise StoreError(f"the settings in '{self.path}' are damaged") from error
        return record

    def note_start(self, pid: int, software: Mapping[str, str] | None = None) -> None:
        """Note that a process works on the run, and warn if its software differs.

        Args:
            pid: its number.
            software: versions of what it uses; by default this process's.
        """
        now = json.dumps(software or versions(), sort_keys=True)
        before = self.rows("SELECT versions FROM starts ORDER BY began LIMIT 1")
        if before and before[0][0] != now:
            log.warning("the run was begun with other versions of the software; going on")
        with self.transaction() as db:
            db.execute("INSERT INTO starts VALUES (?, ?, ?)", (time.time(), pid, now))
