"""Reading a run: rows of numbers, and arrays when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from trompe.audit import chain
from trompe.audit.batches import CERTIFICATE, WORST_CASE
from trompe.audit.bookkeeping import software
from trompe.audit.flags import listed
from trompe.audit.provenance import input_space, outputs_meaning
from trompe.audit.settings import Settings
from trompe.audit.status import Status, status
from trompe.audit.store import Store
from trompe.errors import StoreError
from trompe.geometry.smoothed_method import Smoothing, words_for
from trompe.zoo import ModelSpec

_FACTS = {"mean", "std", "labels", "weights_of", "code_of"}


@dataclass(frozen=True)
class Row:
    """One finished or failed cell.

    Args:
        id: its number.
        model: and what follows: what it is a cell of.
        message: why it failed; ``None`` if it did not.
        values: its metrics; those that are undefined are missing.
        flags: reasons not to trust it.
        x: checksum of the original image's array.
        target_x: of the target image's.
        arrays: of the others.
        batch: number of the batch it belongs to.
        image_number: of the image in the source, from 0.
        target_number: of the target image.
    """

    id: int
    model: str
    method: str
    smoothing: Smoothing | None
    preset: str
    image: str
    target: str
    message: str | None
    values: Mapping[str, float]
    flags: tuple[str, ...]
    x: str | None
    target_x: str | None
    arrays: str | None
    batch: int = 0
    image_number: int = 0
    target_number: int = 0

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Model, method, defence and preset."""
        return (self.model, self.method, self.defence, self.preset)

    @property
    def defence(self) -> str:
        """The smoothing in words; ``none`` for none."""
        return words_for(self.smoothing)

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the image and of the target image."""
        return (self.image, self.target)


class Run:
    """A run, for reading.

    Args:
        store: of the run.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder
        self.settings = Settings.from_record(store.settings())
        self.record = store.settings()
        self.status: Status = status(store)

    @property
    def digest(self) -> str:
        """The last entry of the chain of checksums: it stands for everything in the run."""
        return chain.head(self.store.db)[1]

    def model(self, name: str) -> ModelSpec:
        """The model of that name in tables.

        Raises:
            StoreError: if the run's settings have none.
        """
        for model in self.settings.models:
            if model.key == name:
                return model
        raise StoreError(f"the settings in '{self.store.path}' have no model '{name}'")

    def facts(self, name: str) -> dict[str, Any]:
        """What was written down of a model when the run was begun; see ``provenance.facts``.

        Raises:
            StoreError: if nothing was.
        """
        for model, entry in zip(self.settings.models, self.record["models"], strict=True):
            found = entry.get("found")
            if model.key == name and isinstance(found, dict) and found.keys() >= _FACTS:
                return found
        raise StoreError(f"the settings in '{self.store.path}' do not describe the model '{name}'")

    @cached_property
    def versions(self) -> dict[str, Any]:
        """The software of the process that began the run."""
        found = self.store.rows("SELECT versions FROM starts ORDER BY began LIMIT 1")
        versions = software(found[0][0]) if found else {}
        if versions is None:
            raise StoreError(f"the software noted in '{self.store.path}' is damaged")
        return versions

    @cached_property
    def rows(self) -> list[Row]:
        """The attacks that are done or failed, in order; searches and certificates are apart."""
        return [row for row in self.entered if row.preset not in (WORST_CASE, CERTIFICATE)]

    @cached_property
    def searches(self) -> list[Row]:
        """The searches for the worst case that are done or failed, in order."""
        return [row for row in self.entered if row.preset == WORST_CASE]

    @cached_property
    def certificates(self) -> list[Row]:
        """The certificates that are done or failed, in order."""
        return [row for row in self.entered if row.preset == CERTIFICATE]

    @property
    def by_purpose(self) -> list[Row]:
        """The cells that are done or failed: attacks, then searches, then certificates."""
        return [*self.rows, *self.searches, *self.certificates]

    @cached_property
    def entered(self) -> list[Row]:
        """All cells that are done or failed, in order."""
        values: dict[int, dict[str, float]] = {}
        for cell, name, value in self.store.rows("SELECT cell, name, value FROM metrics"):
            if value is not None:
                values.setdefault(cell, {})[name] = value
        cells = self.store.rows(
            "SELECT c.id, c.model, c.method, c.smoothing, c.preset, i.name AS image, "
            "t.name AS target, c.message, c.flags, c.x, c.target_x, c.arrays, c.batch, "
            "c.image AS image_number, c.target AS target_number FROM cells c "
            "JOIN images i ON i.id = c.image JOIN images t ON t.id = c.target "
            "WHERE c.status != 'open' ORDER BY c.id"
        )
        return [
            Row(
                **{
                    **dict(cell),
                    "smoothing": Smoothing.parse(cell["smoothing"]),
                    "flags": listed(cell["flags"]),
                    "values": values.get(cell["id"], {}),
                }
            )
            for cell in cells
        ]

    def metric_names(self, cell: int) -> set[str]:
        """The metrics that a cell has, those that are undefined with them."""
        return {
            row[0] for row in self.store.rows("SELECT name FROM metrics WHERE cell = ?", (cell,))
        }

    @property
    def done(self) -> list[Row]:
        """The attacks that did not fail."""
        return [row for row in self.rows if row.message is None]

    def arrays(self, row: Row) -> dict[str, Tensor]:
        """The arrays of a finished cell, with ``x`` and ``target_x``, [1, ...] each.

        Raises:
            StoreError: if one is missing or damaged.
        """
        if row.x is None or row.target_x is None or row.arrays is None:
            return {}
        get = self.store.arrays.get
        return {
            **get(row.arrays),
            "x": get(row.x)["x"],
            "target_x": get(row.target_x)["x"],
        }


def open_run(folder: str | Path) -> Run:
    """Open a run for reading.

    Nothing is written, and nothing that the run names is imported, run or opened but its arrays.

    Raises:
        StoreError: if there is none in the folder, or it is damaged.
    """
    store = Store(Path(folder), reading=True)
    try:
        run = Run(store)
        for model in run.settings.models:  # whoever reads it relies on these
            known = run.facts(model.key)
            input_space(known), outputs_meaning(known)
    except BaseException:
        store.close()
        raise
    return run
