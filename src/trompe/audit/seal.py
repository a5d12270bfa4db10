"""The checksum of the whole SQLite file of a run at rest: not a bit of it may fall over unseen.

It is valid as long as the chain has the same last entry. Whoever works on a run first enters that
he does, so that a file which was rightly changed is never held against an old seal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from trompe.atomic import atomic_path
from trompe.audit import chain
from trompe.audit.claims import given_up
from trompe.audit.schema import FILE
from trompe.audit.store import Store, plainly
from trompe.ordinary import read_ordinary

NAME = "seal.json"


def _text(entries: int, digest: str, file: str) -> str:
    seal = {"entries": entries, "digest": digest, "sqlite_sha256": file}
    return json.dumps(seal | {"checksum": chain.checksum(seal)}, indent=2) + "\n"


def _at_rest(store: Store) -> bool:
    """Whether all is in the one file, nothing in the log beside it."""
    log = store.path.with_name(f"{FILE}-wal")
    return not log.exists() or log.stat().st_size == 0


def write_seal(store: Store) -> None:
    """Seal the file as it is, unless somebody still works on the run.

    Raises:
        OutputError: if the seal cannot be written.
    """
    with store.transaction() as db:  # of work that was entered or will never be
        for claim in db.execute("SELECT * FROM claims").fetchall():
            if given_up(claim):
                db.execute("DELETE FROM claims WHERE work = ?", (claim["work"],))
    with plainly(store.path):
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.db.execute("BEGIN IMMEDIATE")  # nobody writes meanwhile
        try:
            busy = store.db.execute("SELECT 1 FROM claims LIMIT 1").fetchone()
            if busy or not _at_rest(store):
                return
            number, digest = chain.head(store.db)
            text = _text(number, digest, store.file_checksum())
        finally:
            store.db.execute("ROLLBACK")
    with atomic_path(store.folder / NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")


def seal_problems(store: Store) -> list[str]:
    """What the seal says against the file; nothing if it agrees, or says nothing."""
    seal = _looked_at(store)
    if seal.problem is not None:
        return [seal.problem]
    if seal.silent is not None:
        return []
    if store.file_checksum() != seal.file:
        return [f"'{FILE}' has changed since it was sealed"]
    if store.rows("SELECT 1 FROM claims LIMIT 1"):
        return [f"'{NAME}' covers claims of work: none is written while somebody works on it"]
    return []


def unsealed(store: Store) -> str | None:
    """Why no seal speaks for the file as it is; ``None`` if one does, or speaks against it.

    Without a seal, what no row of the chain covers (pages in use by nothing, who works on what)
    may be anything, and whoever took it away need not have touched the rest.
    """
    return _looked_at(store).silent


class _Seal(NamedTuple):
    """What is wrong with a seal, why it says nothing, or else the checksum it vouches for."""

    problem: str | None = None
    silent: str | None = None
    file: str = ""


def _looked_at(store: Store) -> _Seal:
    path: Path = store.folder / NAME
    try:
        text = read_ordinary(path, 10_000).decode()
        seal = json.loads(text)
        entries, digest, file = seal["entries"], seal["digest"], seal["sqlite_sha256"]
        whole = text == _text(entries, digest, file)
    except FileNotFoundError:
        return _Seal(silent=f"'{NAME}' is missing")
    except Exception:  # whatever can be wrong with a file that is not what was written
        return _Seal(problem=f"'{NAME}' cannot be read")
    if not whole:
        return _Seal(problem=f"'{NAME}' is not as it was written")
    known = chain.digests(store.db)
    if known.get(digest) != entries:
        return _Seal(problem=f"the run is not, or no longer, the one that '{NAME}' belongs to")
    if (entries, digest) != chain.head(store.db):
        return _Seal(silent=f"work went on since '{NAME}' was written")
    if not _at_rest(store):
        return _Seal(silent=f"'{FILE}-wal' holds what is not yet in '{FILE}'")
    return _Seal(file=file)
