"""The SQLite file of a run: settings, images, cells and metrics."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trompe.atomic import sync_folder
from trompe.audit import chain
from trompe.audit.arrays import ArrayStore
from trompe.audit.place import Place
from trompe.audit.provenance import versions
from trompe.audit.schema import FILE, SCHEMA, misplaced, statements, strange
from trompe.errors import OutputError, StoreError
from trompe.ordinary import is_ordinary

log = logging.getLogger("trompe")


@contextmanager
def plainly(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that names the file."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: of a damaged name
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
        reading: nothing is written, not even where a run may be written to.

    Raises:
        StoreError: if it is missing (and not to be made), damaged, or from another version.
        OutputError: if it cannot be written.
    """

    def __init__(self, folder: Path, *, create: bool = False, reading: bool = False) -> None:
        self.folder, self.path = folder, folder / FILE
        self.arrays = ArrayStore(folder / "arrays")
        self._open_files: list[IO[bytes]] = []
        fresh = not self.path.exists()
        if fresh and not create:
            raise StoreError(f"'{folder}' holds no run ({FILE} is missing): name its folder")
        if not fresh and not is_ordinary(self.path):
            raise StoreError(f"'{self.path}' is no ordinary file: choose another folder")
        for beside in (folder / f"{FILE}{end}" for end in ("-wal", "-shm", "-journal")):
            if os.path.lexists(beside) and (beside.is_symlink() or not is_ordinary(beside)):
                raise StoreError(f"'{beside}' is no ordinary file: delete it")
        if fresh:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make '{folder}': {error.strerror}") from error
        with plainly(self.path):
            self.db = self._connection(reading)
            try:
                self._open(create, reading)
            except BaseException:
                self.db.close()
                raise
        if fresh:
            self._keep_name()
        self.place = Place(self.path)

    def _connection(self, reading: bool) -> sqlite3.Connection:
        # Reading a file in WAL mode makes two more beside it, where that can be.
        still = reading and not (os.access(self.folder, os.W_OK) and os.access(self.path, os.W_OK))
        name = f"{self.path.absolute().as_uri()}?immutable=1" if still else str(self.path)
        db = sqlite3.connect(
            name, timeout=120, isolation_level=None, check_same_thread=False, uri=still
        )
        db.row_factory = sqlite3.Row
        return db

    def _keep_name(self) -> None:
        """See to it that a new file's name is on the disk before anything is said to be done."""
        try:
            sync_folder(self.folder)
            sync_folder(self.folder.absolute().parent)
        except OSError as error:
            raise OutputError(
                f"cannot write '{self.folder}': {error.strerror}: start the same command again"
            ) from error

    def _open(self, create: bool, reading: bool) -> None:
        # What a foreign file declares (views, functions in them) is not to be run.
        self.db.execute("PRAGMA trusted_schema=OFF")
        self.db.execute("PRAGMA foreign_keys=ON")
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
        if reading:
            self.db.execute("PRAGMA query_only=ON")
        else:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")
            self._make(create)
        self._know_tables()

    def _make(self, create: bool) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            tables = self._tables()
            if "meta" not in tables and not tables and create:
                for statement in statements():
                    self.db.execute(statement)
                self.set("schema", SCHEMA)
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def _know_tables(self) -> None:
        if "meta" not in self._tables():
            raise StoreError(f"'{self.path}' is no run of trompe: choose another folder")
        if self.get("schema") != SCHEMA:
            raise StoreError(
                f"'{self.path}' was written by another version of trompe (format "
                f"{self.get('schema')}, this one reads {SCHEMA}): use that one"
            )
        rows = self.db.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        if others := strange([(row[0], row[1], row[2]) for row in rows]):
            raise StoreError(
                f"'{self.path}' is damaged, or no run of trompe: its tables are others "
                f"({', '.join(others)})"
            )
        if wrong := misplaced(self.db):
            raise StoreError(f"'{self.path}' is damaged, or no run of trompe: {wrong[0]}")

    def _tables(self) -> set[str]:
        return {row[0] for row in self.db.execute("SELECT name FROM sqlite_master")}

    def close(self) -> None:
        """Close the connection."""
        self.db.close()
        for file in self._open_files:
            file.close()

    def file_checksum(self) -> str:
        """The checksum of the SQLite file as it lies on the disk, but for what is in its log."""
        # Closed with the connection: on Unix, closing any handle of a file gives up all locks.
        file = self.path.open("rb")
        self._open_files.append(file)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()

    def check_chain(self) -> None:
        """Raise a StoreError if a row that counts is not as it was entered."""
        with plainly(self.path):
            found = chain.problems(self.db)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise StoreError(
                f"the run's store '{self.path}' is damaged: {found[0]}{more}: it was left as it "
                "is; restore it from a copy, or choose another folder"
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything within is written, or nothing; no other process writes meanwhile."""
        with plainly(self.path):
            self.place.check()
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.place.check()
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
        except (ValueError, RecursionError) as error:
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
            number = db.execute(
                "INSERT INTO starts (began, pid, versions) VALUES (?, ?, ?)",
                (time.time(), pid, now),
            ).lastrowid
            chain.link(db, f"start:{number}")
