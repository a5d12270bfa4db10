"""Whether a command asks for what a run was begun with: settings, images, models."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trompe.audit import chain
from trompe.audit.changed_options import changed_options
from trompe.audit.claims import given_up
from trompe.audit.schema import SCHEMA
from trompe.audit.source import Image
from trompe.audit.store import Store
from trompe.errors import UsageError


def agree(store: Store, record: Mapping[str, Any], images: Sequence[Image]) -> None:
    """Write the settings down, or compare them with those the run was begun with.

    As long as no cell is planned and nobody is at work, other settings take their place: a
    command that came to nothing does not stand in the way of the one that is right.

    Args:
        store: of the run.
        record: of the settings.
        images: all of the source.

    Raises:
        UsageError: if they differ; the message lists the differences.
    """
    with store.transaction() as db:
        found = None if store.get("settings") is None else _changed(store, record, images)
        if found and unused(store):
            for table in ("meta", "images", "screens", "starts", "chain"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - the names are those above
            store.set("schema", SCHEMA)
            found = None
        if found is None:
            store.set("settings", json.dumps(record, sort_keys=True))
            store.set("began", repr(time.time()))
            db.executemany(
                "INSERT INTO images (id, name, label, content) VALUES (?, ?, ?, ?)",
                ((i, one.name, one.label, one.content) for i, one in enumerate(images)),
            )
            chain.link(db, "settings")
            chain.link(db, "images")
    if found:
        raise UsageError(found)


def unused(store: Store) -> bool:
    """Whether nothing was planned and nobody is at work, so that the run may begin anew."""
    if store.rows("SELECT 1 FROM planned UNION ALL SELECT 1 FROM cells LIMIT 1"):
        return False
    return all(given_up(one) for one in store.rows("SELECT * FROM claims"))


def _changed(store: Store, record: Mapping[str, Any], images: Sequence[Image]) -> str:
    """What differs, in words; empty if nothing does."""
    before = {row["name"]: row["content"] for row in store.rows("SELECT * FROM images")}
    if before.keys() == {one.name for one in images}:
        for one in images:
            if before[one.name] != one.content:
                return (
                    f"image '{one.name}' is no longer the one that '{store.folder}' was begun "
                    "with: put it back, or choose another folder"
                )
    if changed := changed_options(store.settings(), record):
        return (
            f"'{store.folder}' was begun with other settings: {'; '.join(changed)}: choose "
            "another folder, or the same settings"
        )
    return ""
