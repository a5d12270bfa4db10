"""How far a run is."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from trompe.attacks.objectives import DEFAULT_OBJECTIVE
from trompe.audit.flags import listed
from trompe.audit.store import Store


@dataclass(frozen=True)
class Status:
    """Counts of a run.

    Args:
        cells: all that are planned.
        done: finished ones.
        errors: ones that failed, with a message.
        claimed: batches that a process works on.
        planned: whether all models' cells are entered.
        images: in the source.
        wrong: per model, images that were skipped because they are classified wrongly.
        corrupt: images that cannot be read.
        flags: how often each flag was raised.
        seconds: since the run was begun.
        objective: of its attacks.
        constraint: where their images must stay; ``None`` for the presets' own.
        worst_case: budget of the search for the worst case; ``None`` for no search.
        certify: the certificates of every image; ``None`` for none.
        failures: why cells failed, and how many for that reason, the most frequent first.
    """

    cells: int
    done: int
    errors: int
    claimed: int
    planned: bool
    images: int
    wrong: dict[str, int]
    corrupt: int
    flags: dict[str, int]
    seconds: float
    objective: str = DEFAULT_OBJECTIVE
    constraint: str | None = None
    worst_case: float | None = None
    certify: str | None = None
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Cells still to be worked on."""
        return self.cells - self.done - self.errors

    @property
    def complete(self) -> bool:
        """Whether every cell is done; one that failed is not."""
        return self.planned and self.done == self.cells


def status(store: Store) -> Status:
    """Count the cells of a run."""
    counted = store.rows("SELECT status, COUNT(*) FROM cells GROUP BY status")
    kinds = {str(kind): int(count) for kind, count in counted}
    settings = store.settings()
    models = len(settings["models"])
    wrong = store.rows(
        "SELECT model, COUNT(*) FROM screens WHERE usable = 0 AND class IS NOT NULL GROUP BY model"
    )
    raised: Counter[str] = Counter()
    for text, times in store.rows(
        "SELECT flags, COUNT(*) FROM cells WHERE status = 'done' GROUP BY flags"
    ):
        for flag in listed(text):
            raised[flag] += times
    failures = store.rows(
        "SELECT message, COUNT(*) AS times FROM cells WHERE status = 'error' GROUP BY message "
        "ORDER BY times DESC, message"
    )
    began = float(store.get("began") or time.time())

    def count(query: str) -> int:
        return int(store.rows(query)[0][0])

    return Status(
        cells=sum(kinds.values()),
        done=kinds.get("done", 0),
        errors=kinds.get("error", 0),
        claimed=count("SELECT COUNT(*) FROM claims WHERE work LIKE 'batch %'"),
        planned=count("SELECT COUNT(*) FROM planned") == models,
        images=count("SELECT COUNT(*) FROM images"),
        wrong={str(model): int(count) for model, count in wrong},
        corrupt=count("SELECT COUNT(DISTINCT image) FROM screens WHERE problem IS NOT NULL"),
        flags=dict(raised),
        seconds=time.time() - began,
        objective=settings.get("objective", DEFAULT_OBJECTIVE),
        constraint=settings.get("constraint"),
        worst_case=settings.get("worst_case"),
        certify=settings.get("certify"),
        failures={str(message): int(times) for message, times in failures},
    )
