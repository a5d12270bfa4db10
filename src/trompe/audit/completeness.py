"""Whether a run is all that it must be: nothing taken out, nothing put in, nothing rewritten."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from trompe.audit import chain
from trompe.audit.bookkeeping import bookkeeping_problems
from trompe.audit.planning import chosen_pairs, planned_batches
from trompe.audit.provenance import outputs_meaning
from trompe.audit.results import Run
from trompe.audit.seal import seal_problems
from trompe.audit.source import Image, fingerprint
from trompe.audit.status import status
from trompe.audit.store import Store, plainly
from trompe.errors import StoreError, TrompeError
from trompe.outputs import Outputs


def whole_run_problems(store: Store) -> list[str]:
    """What is wrong with a run as a whole; its cells are checked one by one elsewhere.

    Args:
        store: of the run.

    Returns:
        In words; nothing if all is as it must be. That cells are still open is nothing wrong; see
        ``incomplete``.
    """
    found = [*_file(store), *seal_problems(store)]
    with plainly(store.path):
        found += chain.problems(store.db)
    try:
        run = Run(store)
        found += bookkeeping_problems(store)
        found += [
            *_source(run),
            *_screens(run),
            *_plan(run),
            *_cells(run),
            *_images_kept(run),
        ]
    except TrompeError as error:
        found.append(str(error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        found.append(f"the run cannot be read ({type(error).__name__}: {error})")
    return found + list(_unused_arrays(store))


def incomplete(store: Store) -> str | None:
    """What a run still lacks, which is no sign of a forgery; ``None`` if it lacks nothing.

    Failed cells are not missing: they were tried.
    """
    state = status(store)
    if not state.planned:
        return "it was ended before all its cells were planned"
    if state.open:
        return f"{state.open} of {state.cells} cells are open"
    return None


def _file(store: Store) -> Iterator[str]:
    """What SQLite itself says."""
    try:
        rows = store.db.execute("PRAGMA integrity_check").fetchall()
        if [row[0] for row in rows] != ["ok"]:
            yield f"'{store.path.name}' is damaged: {rows[0][0]}"
        for row in store.db.execute("PRAGMA foreign_key_check"):
            yield f"a row of '{row[0]}' belongs to nothing"
    except sqlite3.DatabaseError as error:
        yield f"'{store.path.name}' is damaged: {error}"


def _source(run: Run) -> Iterator[str]:
    rows = run.store.rows("SELECT id, name, label, content FROM images ORDER BY id")
    if [row["id"] for row in rows] != list(range(len(rows))):
        yield "an image is missing from the list of images"
    images = [Image(row["name"], row["label"], row["content"]) for row in rows]
    if fingerprint(images) != run.record["source"]:
        yield "the list of images is not the one that the settings were written for"


def _screens(run: Run) -> Iterator[str]:
    """Whether images were left out for the reasons that count."""
    rows = run.store.rows(
        "SELECT s.model, i.name, i.label, s.class, s.usable, s.problem FROM screens s "
        "JOIN images i ON i.id = s.image"
    )
    for row in rows:
        outputs = outputs_meaning(run.facts(row["model"])) or Outputs()
        right = not outputs.decides or row["label"] in (None, row["class"])
        right = right or run.settings.keep_wrong
        if bool(row["usable"]) != (row["problem"] is None and right):
            yield f"image '{row['name']}' is used, or left out, for no reason"
        if (row["problem"] is None) == (row["class"] is None):
            yield f"image '{row['name']}' has no class, or one although it cannot be read"
    seen = run.store.rows(
        "SELECT DISTINCT c.model, i.name, s.class, m.value FROM cells c JOIN images i ON "
        "i.id = c.image JOIN metrics m ON m.cell = c.id AND m.name = 'class_before' LEFT JOIN "
        "screens s ON s.model = c.model AND s.image = c.image WHERE c.status = 'done'"
    )
    for row in seen:
        if row["class"] != row["value"]:
            yield f"image '{row['name']}' has another class in the attacks than when it was chosen"


def _plan(run: Run) -> Iterator[str]:
    """Whether the cells are those that the settings ask for, in their batches."""
    settings, store = run.settings, run.store
    planned = {row["model"]: row["pairs"] for row in store.rows("SELECT * FROM planned")}
    if not set(planned) <= {model.key for model in settings.models}:
        yield "other models are planned than those of the settings"
    count = int(store.rows("SELECT COUNT(*) FROM images")[0][0])
    given = run.record["pairs_given"]
    for name, number in planned.items():
        rows = store.rows("SELECT image, usable FROM screens WHERE model = ?", (name,))
        usable = {row["image"]: bool(row["usable"]) for row in rows}

        def known(images: Sequence[int], usable: dict[int, bool] = usable) -> None:
            if any(image not in usable for image in images):
                raise StoreError("an image was chosen that was never looked at")

        pairs = chosen_pairs(
            settings,
            count,
            usable,
            look=known,
            given=None if given is None else [(pair[0], pair[1]) for pair in given],
        )
        if len(pairs) != number:
            yield f"{number} pairs are planned for {name}, where there must be {len(pairs)}"
        expected: list[Any] = [
            ((name, *kind), some) for kind, some in planned_batches(settings, pairs)
        ]
        found: list[Any] = []
        for batch in store.rows("SELECT * FROM batches WHERE model = ? ORDER BY id", (name,)):
            cells = store.rows("SELECT * FROM cells WHERE batch = ? ORDER BY id", (batch["id"],))
            kind = (batch["model"], batch["method"], batch["smoothing"], batch["preset"])
            if any((c["model"], c["method"], c["smoothing"], c["preset"]) != kind for c in cells):
                yield f"a cell of batch {batch['id']} is of another kind than its batch"
            found.append((kind, [(cell["image"], cell["target"]) for cell in cells]))
        if found != expected:
            yield f"the cells for {name} are not those that the settings ask for"
    strays = store.rows("SELECT COUNT(*) FROM cells WHERE model NOT IN (SELECT model FROM planned)")
    if strays[0][0]:
        yield f"{strays[0][0]} cells belong to no model that is planned"


def _cells(run: Run) -> Iterator[str]:
    """Whether every cell is done or failed, and holds what such a cell must hold."""
    for row in run.store.rows("SELECT * FROM cells ORDER BY id"):
        name, kept = f"cell {row['id']}", [row["x"], row["target_x"], row["arrays"]]
        if row["status"] == "open":
            if kept != [None] * 3 or row["flags"] is not None or row["message"] is not None:
                yield f"{name} is said to be open, but is not"
        elif row["status"] == "done":
            if row["message"] is not None or None in (*kept, row["flags"]) or row["tries"] < 1:
                yield f"{name} is said to be done, but is not"
        elif row["status"] != "error" or row["message"] is None or kept != [None] * 3:
            yield f"{name} is said to have failed, but has not"
    wrong = run.store.rows(
        "SELECT DISTINCT cell FROM metrics JOIN cells ON id = cell WHERE status != 'done'"
    )
    for row in wrong:
        yield f"cell {row[0]} has metrics although it is not done"


def _images_kept(run: Run) -> Iterator[str]:
    """Whether one image of one model is the same in all cells, be it attacked or aimed at."""
    known: dict[tuple[str, int], str] = {}
    for row in run.store.rows(
        "SELECT model, image, target, x, target_x FROM cells WHERE status = 'done' ORDER BY id"
    ):
        for number, kept in ((row["image"], row["x"]), (row["target"], row["target_x"])):
            if known.setdefault((row["model"], number), kept) != kept:
                yield f"image {number} is not the same in all cells of {row['model']}"


def _unused_arrays(store: Store) -> Iterator[str]:
    """Files that no cell refers to, such as those of a process that was killed, but damaged."""
    used: set[str] = set()
    try:
        for row in store.rows("SELECT x, target_x, arrays FROM cells WHERE status = 'done'"):
            used |= {text for text in row if isinstance(text, str)}
    except StoreError:  # said already
        return
    for path in sorted(store.arrays.folder.glob("??/*.safetensors")):
        stray = path.stem not in used and path.is_file()
        if stray and hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
            yield f"array file '{path}' is damaged; no cell uses it: delete it"
