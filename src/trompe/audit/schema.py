"""The tables of a run's SQLite file."""

from __future__ import annotations

import sqlite3

FILE = "run.sqlite"
SCHEMA = "2"
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE chain (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, content TEXT NOT NULL,
                    digest TEXT NOT NULL);
CREATE TABLE starts (id INTEGER PRIMARY KEY, began REAL, pid INTEGER, versions TEXT);
CREATE TABLE claims (work TEXT PRIMARY KEY, owner TEXT, host TEXT, pid INTEGER, born TEXT,
                     until REAL);
CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT NOT NULL, label INTEGER, content TEXT);
CREATE TABLE screens (model TEXT, image INTEGER REFERENCES images (id), class INTEGER,
                      usable INTEGER, problem TEXT, part INTEGER NOT NULL,
                      PRIMARY KEY (model, image));
CREATE TABLE planned (model TEXT PRIMARY KEY, pairs INTEGER);
CREATE TABLE batches (id INTEGER PRIMARY KEY, model TEXT, method TEXT, smoothing TEXT, preset TEXT,
                      done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX open_batches ON batches (done, id);
CREATE TABLE cells (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL REFERENCES batches (id),
                    model TEXT, method TEXT, smoothing TEXT, preset TEXT,
                    image INTEGER REFERENCES images (id), target INTEGER REFERENCES images (id),
                    status TEXT NOT NULL DEFAULT 'open', tries INTEGER NOT NULL DEFAULT 0,
                    message TEXT, flags TEXT, x TEXT, target_x TEXT, arrays TEXT, finished REAL,
                    UNIQUE (model, method, smoothing, preset, image, target));
CREATE INDEX cells_of_batch ON cells (batch);
CREATE TABLE metrics (cell INTEGER NOT NULL REFERENCES cells (id), name TEXT NOT NULL, value REAL,
                      PRIMARY KEY (cell, name)) WITHOUT ROWID;
"""


def statements() -> list[str]:
    """What makes the tables, one statement each."""
    return [text.strip() for text in TABLES.split(";") if text.strip()]


def strange(found: list[tuple[str, str, str | None]]) -> list[str]:
    """What a file has that a run's has not, or the other way round.

    A foreign file may hold views and triggers, which run whenever a table is read or written.

    Args:
        found: kind, name and statement of everything in the file.
    """
    expected = {}
    for statement in statements():
        words = statement.split()
        expected[words[2]] = (words[1].lower(), statement)
    seen = {name: (kind, text) for kind, name, text in found if text is not None}
    return sorted(
        name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name)
    )


def misplaced(db: sqlite3.Connection) -> list[str]:
    """Columns that hold what trompe never writes: SQLite takes any value anywhere.

    Args:
        db: with the tables of a run.

    Returns:
        In words; nothing if texts are texts, and numbers are finite numbers.
    """
    found = []
    for statement in statements():
        words = statement.split()
        if words[1] != "TABLE" or words[2] == "claims":
            continue
        for column in db.execute(f"PRAGMA table_info({words[2]})").fetchall():
            name, kind = column[1], column[2].lower()
            wrong = f"typeof({name}) NOT IN ('{kind}', 'null')"
            if kind == "real":
                wrong += f" OR abs({name}) > 1.7976931348623157e308"
            query = f"SELECT 1 FROM {words[2]} WHERE {wrong} LIMIT 1"  # noqa: S608 - of this file
            if db.execute(query).fetchone():
                found.append(f"{words[2]}.{name} holds what is no {kind}")
    return found
