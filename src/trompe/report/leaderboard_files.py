"""The leaderboard's entries as files: one per model, method and defence, each with a checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trompe.atomic import atomic_path
from trompe.audit import Run, chain
from trompe.audit.leaderboard import EPSILON, TAU, leaderboard
from trompe.audit.results import Row
from trompe.ordinary import read_ordinary
from trompe.report.files import prepare_output, safe_names
from trompe.report.manifest import BY_THE_SYSTEM

FOLDER = "leaderboard"


def _text(entry: dict[str, Any]) -> str:
    sealed = {**entry, "checksum": chain.checksum(entry)}
    return json.dumps(sealed, indent=2) + "\n"


def _file_names(entries: list[dict[str, Any]]) -> list[str]:
    return safe_names([f"{e['model']} {e['method']} {e['defence']}" for e in entries])


def write_leaderboard(
    run: Run, folder: Path | None = None, *, tau: float = TAU, epsilon: float = EPSILON
) -> list[Path]:
    """Write one JSON file per model, method and defence.

    Args:
        run: to be summarised.
        folder: where the folder ``leaderboard`` is made; by default the run's own, where
            ``trompe verify`` checks it.
        tau: least correlation with the original map.
        epsilon: largest change of a pixel, pixel units 0..1.

    Raises:
        OutputError: if a file cannot be written.
    """
    place = prepare_output((folder or run.folder) / FOLDER)
    entries = leaderboard(run, tau=tau, epsilon=epsilon)
    paths = []
    for name, entry in zip(_file_names(entries), entries, strict=True):
        paths.append(place / f"{name}.json")
        with atomic_path(paths[-1]) as temporary:
            temporary.write_text(_text(entry), encoding="utf-8")
    return paths


def check_leaderboard(run: Run) -> tuple[list[str], list[Path]]:
    """Compare the entries in the run's folder with what follows from the run.

    Returns:
        What does not agree, in words; and the files that are right for an earlier state of the run,
        so that they only need to be written again.
    """
    problems, stale = [], []
    states, (_, head) = chain.digests(run.store.db), chain.head(run.store.db)
    missing: set[str] = set()
    for path in sorted((run.folder / FOLDER).glob("*.json")):
        name = f"{FOLDER}/{path.name}"
        try:
            text = read_ordinary(path, 1 << 20).decode()
            kept = json.loads(text)
            digest = kept["run"]
            state = states.get(digest)
            rows = None if digest == head or state is None else _rows_at(run, state)
            tau, epsilon = float(kept["tau"]), float(kept["epsilon"])
            fresh = leaderboard(run, tau=tau, epsilon=epsilon, rows=rows, digest=digest)
            names = dict(zip(_file_names(fresh), fresh, strict=True))
        except Exception as error:  # it may hold anything
            problems.append(f"{name} cannot be read ({type(error).__name__}: {error})")
            continue
        if state is None:
            problems.append(f"{name} belongs to no state that this run was in")
        elif path.stem not in names or _text(names[path.stem]) != text:
            problems.append(f"{name} is not what follows from the run")
        elif digest != head:
            stale.append(path)
        else:
            missing |= {one for one in names if not (path.parent / f"{one}.json").exists()}
    for path in sorted((run.folder / FOLDER).glob("*")):
        ours = path.suffix == ".json" or path.name in BY_THE_SYSTEM or path.name.startswith(".")
        if not ours:
            problems.append(f"{FOLDER}/{path.name} is nothing of the run: remove it")
    said = "is missing: write the report anew"
    problems += [f"{FOLDER}/{one}.json {said}" for one in sorted(missing)]
    return problems, stale


def _rows_at(run: Run, state: int) -> list[Row]:
    """The cells that were entered when the chain had ``state`` entries."""
    entered = {
        int(subject.partition(":")[2]): number
        for subject, number in chain.latest(run.store.db).items()
        if subject.startswith("batch:")
    }
    return [row for row in run.by_purpose if entered.get(row.batch, state + 1) <= state]
