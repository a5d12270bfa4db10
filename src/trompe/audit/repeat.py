"""Doing some batches of a run again: whether they give what the run says that they gave.

Everything in a cell follows from its images, but not that these are what the attack, or the search
for the worst case, found: the original could have been put in their place, or a cell be said to
have failed. Only doing it again tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.audit.arrays import content_of
from trompe.audit.batches import CERTIFICATE, WORST_CASE, Cell, Pixels, read_images
from trompe.audit.cell import Finding, Worker
from trompe.audit.certified import Certifier
from trompe.audit.findings import storable
from trompe.audit.results import Row, Run
from trompe.audit.source import Source
from trompe.audit.verify import Verifier
from trompe.audit.worst_case import Searcher
from trompe.errors import UsageError
from trompe.types import LoadedModel

#: How far a repeated cell may be from that of the run where it was rounded otherwise, many steps
#: long: on another machine, with other threads or another version of torch. Correlations of maps
#: and shares of the pixel range, in their own unit; whatever else there is follows from the images.
TOLERANCES = {"map_original_pcc": 0.05, "map_target_pcc": 0.05, "image_linf": 0.02}
#: The same of the number of images that a search looked at, as a share of it.
LOOKED_AT = 0.1
#: What is measured by the clock.
_CLOCK = "seconds"


class _KeptImages(Worker):
    """Takes images as they are kept, normalised [1, C, H, W], in place of pixels."""

    def _images(self, numbers: Sequence[int], pixels: Pixels) -> Tensor:
        return torch.cat([torch.as_tensor(pixels[i]) for i in numbers]).to(self.place)


class _KeptSearcher(_KeptImages, Searcher):
    """A search that starts from kept images."""


class _KeptCertifier(_KeptImages, Certifier):
    """Certificates of kept images."""


#: By what a cell is called in place of a preset: who does it again from pixels, and from what is
#: kept.
_WORKERS: dict[str, tuple[type[Worker], type[Worker]]] = {
    WORST_CASE: (Searcher, _KeptSearcher),
    CERTIFICATE: (Certifier, _KeptCertifier),
}


@dataclass(frozen=True)
class Repeated:
    """What came of a batch that was done again.

    Args:
        batch: its number.
        cells: how many of its cells were done again.
        exact: how many of its cells came out the same, bit by bit.
        close: how many agree within the tolerance only.
        problems: what does not agree, in words.
        left: which cells could not be done again, and why.
    """

    batch: int
    cells: int
    exact: int
    close: int
    problems: tuple[str, ...]
    left: tuple[str, ...]


class Repeater:
    """Does batches of a run again, by its own settings and seeds.

    Args:
        run: to be checked.
        verifier: of the run; it knows which models may be run, and loads them.
        source: of the images, to read them anew. Otherwise those are taken that the run keeps; a
            failed cell whose images no other cell has cannot be done again then.
        exact: whether a difference in a single bit is a problem, too.
    """

    def __init__(
        self, run: Run, verifier: Verifier, *, source: Source | None = None, exact: bool = False
    ) -> None:
        self.run, self.verifier, self.source, self.exact = run, verifier, source, exact
        if source is not None:
            listed = run.store.rows("SELECT id, content FROM images")
            source.know({row["id"]: row["content"] for row in listed})
        self._kept: dict[tuple[str, int], str] = {}
        for row in run.entered:
            for number, checksum in ((row.target_number, row.target_x), (row.image_number, row.x)):
                if checksum is not None:
                    self._kept[row.model, number] = checksum

    def drawn(self, count: int, seed: int) -> list[int]:
        """The numbers of ``count`` of the batches that may be done again; all of fewer.

        Batches of certificates are among them only where one is said to have failed: of the others
        the verifier draws the noisy copies again anyway.
        """
        distrusted = self.verifier.distrusted()
        failed = [row for row in self.run.certificates if row.message is not None]
        rows = (*self.run.rows, *self.run.searches, *failed)
        able = sorted({row.batch for row in rows if row.model not in distrusted})
        order = torch.randperm(len(able), generator=torch.Generator().manual_seed(seed))
        return sorted(able[place] for place in order[:count].tolist())

    def repeat(self, batch: int) -> Repeated:
        """Do a batch again, and compare."""
        rows = [row for row in self.run.entered if row.batch == batch]
        first = rows[0]
        loaded = self.verifier.loaded(first.model)
        kind = (first.method, first.defence, first.preset)
        anew, kept = _WORKERS.get(first.preset, (Worker, _KeptImages))
        make = kept if self.source is None else anew
        worker = make(self.run.settings, loaded, kind)
        pixels = self._pixels(rows, loaded)
        left = [row for row in rows if not self._cell_images(row) <= pixels.keys()]
        exact, close, problems = 0, 0, []
        for row, group in self._groups([row for row in rows if row not in left]):
            differs, wrong = self._compared(row, worker, group, pixels)
            problems += [f"cell {row.id}, done again: {text}" for text in wrong]
            exact += not differs
            close += differs and not wrong
        said = (f"cell {row.id} failed, and no other cell keeps its images" for row in left)
        return Repeated(batch, len(rows) - len(left), exact, close, tuple(problems), tuple(said))

    @staticmethod
    def _cell_images(row: Row) -> set[int]:
        return {row.image_number, row.target_number}

    def _pixels(self, rows: Sequence[Row], loaded: LoadedModel) -> Pixels:
        """The images of a batch, as far as they can be had."""
        if self.source is not None:
            return read_images(self.source, [_cell(row) for row in rows], loaded.preprocessing)
        numbers = {number for row in rows for number in self._cell_images(row)}
        names = {
            n: self._kept[rows[0].model, n] for n in numbers if (rows[0].model, n) in self._kept
        }
        return {n: self.run.store.arrays.get(name)["x"] for n, name in names.items()}

    def _groups(self, rows: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
        """Each cell with those that were worked on at once when it came to its result.

        A cell that is done is not tried again: the n-th try of a batch is of those that were
        tried n times or more.
        """
        found = self.run.store.rows("SELECT id, tries FROM cells")
        tries = {row["id"]: row["tries"] for row in found}
        for row in rows:
            yield row, [other for other in rows if tries[other.id] >= tries[row.id]]

    def _compared(
        self, row: Row, worker: Worker, group: Sequence[Row], pixels: Pixels
    ) -> tuple[bool, list[str]]:
        """Whether a cell differs at all, and what of that is a problem.

        Where a batch fails (out of memory), its cells are worked on one by one: what one found in
        a batch, or alone, is what it may have found.
        """
        wrong: list[list[str]] = []
        for some in [group] if len(group) == 1 else [group, [row]]:
            found = self._found(worker, some, pixels)[row.id]
            if same(row, found):
                return False, []
            wrong.append(list(problems(row, found, exact=self.exact)))
        return True, [] if [] in wrong else wrong[0]

    def _found(self, worker: Worker, rows: Sequence[Row], pixels: Pixels) -> dict[int, Finding]:
        return {one.cell: one for one in worker.batch([_cell(row) for row in rows], pixels)}


def check_images(run: Run, source: Source) -> None:
    """Refuse images that are not, by name and content, those that the run lists.

    Raises:
        UsageError: naming one that is not.
    """
    rows = run.store.rows("SELECT name, content FROM images ORDER BY id")
    listed = [(row["name"], row["content"]) for row in rows]
    given = [(one.name, one.content) for one in source.images()]
    if given == listed:
        return
    if strays := [name for name, content in given if (name, content) not in listed]:
        why = f"'{strays[0]}' is none of the run's, or has another content"
    else:
        why = f"there are {len(given)}, the run has {len(listed)}"
    raise UsageError(
        f"the images of '{source.spec}' are not those of the run ({why}): name the same ones"
    )


def _cell(row: Row) -> Cell:
    return Cell(row.id, row.image_number, row.target_number)


def _values(found: Finding) -> dict[str, float]:
    """The metrics of a finding as a run gives them back: those that are undefined are missing."""
    return {name: value for name, value in found.values.items() if storable(value) is not None}


def same(row: Row, found: Finding) -> bool:
    """Whether a repeated cell is that of the run, bit by bit, but for the clock; or fails, too."""
    if row.message is not None or found.message is not None:
        return row.message is not None and found.message is not None
    assert found.x is not None, "it did not fail"
    assert found.target_x is not None, "it did not fail"
    made = [{"x": found.x}, {"x": found.target_x}, found.arrays]
    return (
        [content_of(tensors)[0] for tensors in made] == [row.x, row.target_x, row.arrays]
        and tuple(found.flags) == row.flags
        and {**_values(found), _CLOCK: 0.0} == {**row.values, _CLOCK: 0.0}
    )


def problems(row: Row, found: Finding, *, exact: bool) -> Iterator[str]:
    """What cannot be of a repeated cell that differs from that of the run, in words.

    Args:
        row: of the run.
        found: what came of it now.
        exact: whether a difference that rounding may explain is a problem, too.
    """
    if row.message is not None:
        yield f"it does not fail, as it is said to have done ({row.message})"
        return
    if found.message is not None:
        yield f"it fails ({found.message})"
        return
    far = list(_far(row.values, _values(found)))
    yield from far or (["it differs in some bits"] if exact else [])


def _far(before: Mapping[str, float], now: Mapping[str, float]) -> Iterator[str]:
    """The numbers that differ by more than rounding explains."""
    for name, allowed in TOLERANCES.items():
        if (name in before) != (name in now) or abs(
            before.get(name, 0.0) - now.get(name, 0.0)
        ) > allowed:
            yield f"{name} is {now.get(name)}, not {before.get(name)}"
    for name in ("iterations", "class_kept"):
        if before.get(name) != now.get(name):
            yield f"{name} is {now.get(name)}, not {before.get(name)}"
    looked = [sum(values.get(k, 0.0) for k in ("judged", "flipped")) for values in (before, now)]
    if abs(looked[0] - looked[1]) > LOOKED_AT * looked[1]:
        yield f"it looks at {looked[1]:.0f} images, not at {looked[0]:.0f}"
