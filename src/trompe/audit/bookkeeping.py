"""What a run notes about itself beside its results: only what trompe writes is a run's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from trompe.audit.settings import Settings
from trompe.audit.store import Store

_KEYS = {"schema", "settings", "began"}
#: What the settings hold besides those that were given; see ``Settings.recorded``.
_FOUND = {"code_of_parts", "patterns_sha256", "pair_list_sha256", "pairs_given", "source"}
#: And of each model; see ``trompe.audit.provenance.facts``.
_FOUND_OF_MODEL = {"weights_sha256", "classes_sha256", "found"}
_FACTS = {"mean", "std", "labels", "weights_of", "code_of"}


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
    if store.rows(
        "SELECT 1 FROM cells WHERE status = 'done' AND NOT EXISTS (SELECT 1 FROM metrics WHERE "
        "cell = id AND name = 'seconds' AND value >= 0) LIMIT 1"
    ):
        yield "a cell took no time"
    text = store.get("settings") or ""
    record = store.settings()
    known = {field.name for field in dataclasses.fields(Settings)} | _FOUND
    if text != json.dumps(record, sort_keys=True):
        yield "the settings are not written as trompe writes them"
    if strays := sorted(record.keys() - known):
        yield f"the settings have '{strays[0]}', which is none"
    yield from _not_as_given(record)
    parts = [("patterns", record), ("pair_list", record)]
    parts += [(name, model) for model in record["models"] for name in ("weights", "classes")]
    for name, where in parts:
        named = where.get(name) not in (None, "random")
        if named != (where.get(f"{name}_sha256") is not None):
            yield f"the settings name {name} without a checksum, or the other way round"


def _not_as_given(record: dict[str, Any]) -> Iterator[str]:
    """Whether the settings are as a command writes them down: no key more or less."""
    expected = json.loads(json.dumps(Settings.from_record(record).given()))
    models = record["models"]
    plain = {key: value for key, value in record.items() if key not in _FOUND}
    plain["models"] = [{k: v for k, v in one.items() if k not in _FOUND_OF_MODEL} for one in models]
    if plain != expected:
        yield "the settings are not as a command writes them down"
    for one in models:
        if one.keys() < _FOUND_OF_MODEL or one["found"].keys() - {"outputs"} != _FACTS:
            yield f"what is noted of the model '{one['name']}' is not what trompe notes"


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def software(text: object) -> dict[str, Any] | None:
    """The versions that a start notes; ``None`` if they are none."""
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and all(
        value is None or isinstance(value, str) for value in found.values()
    )
    return found if whole else None
