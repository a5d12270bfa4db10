"""From images to cells: which can be used, which pairs are drawn, how they are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch

from trompe.audit import chain
from trompe.audit.batches import CERTIFICATE, WORST_CASE
from trompe.audit.image_tables import read_pairs
from trompe.audit.settings import Settings
from trompe.audit.source import Source
from trompe.audit.store import Store
from trompe.engine import frozen
from trompe.errors import ImageError, UsageError
from trompe.types import LoadedModel

#: Images that are looked at between two entries into the store.
CHUNK = 32


def candidate_pairs(count: int, seed: int) -> Iterator[tuple[int, int]]:
    """All pairs of two different images, in an order that the seed decides.

    The first ``count // 2`` pairs have no image in common; none comes twice.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    for shift in range(1, count):
        if shift == 1:
            starts = [*range(0, count - 1, 2), *range(1, count, 2)]
            starts += [count - 1] if count % 2 else []
        else:
            starts = list(range(count))
        for k in starts:
            yield order[k], order[(k + shift) % count]


def candidates(settings: Settings, count: int) -> Iterator[tuple[int, int]]:
    """All pairs that may be attacked, in the order in which they are tried.

    Of an objective that aims at no other image, each image with itself.
    """
    if settings.aims_at_images:
        return candidate_pairs(count, settings.seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed)).tolist()
    return ((image, image) for image in order)


class Screening:
    """Finds out, once per image and model, whether an image can be used.

    Args:
        store: of the run; holds what is known, and what is found.
        settings: of the run.
        source: of the images.
        loaded: the model.
        name: of the model.
    """

    def __init__(
        self, store: Store, settings: Settings, source: Source, loaded: LoadedModel, name: str
    ) -> None:
        self.store, self.settings, self.source = store, settings, source
        self.loaded, self.name = loaded, name
        rows = store.rows("SELECT image, usable FROM screens WHERE model = ?", (name,))
        self.usable: dict[int, bool] = {image: bool(usable) for image, usable in rows}

    def look(self, images: Sequence[int]) -> None:
        """Read and classify the images that are not known yet."""
        unknown = [image for image in dict.fromkeys(images) if image not in self.usable]
        for start in range(0, len(unknown), CHUNK):
            self._look(unknown[start : start + CHUNK])

    def _look(self, images: Sequence[int]) -> None:
        pixels, readable, problems = [], [], []
        for image in images:
            try:
                pixels.append(self.source.pixels(image, self.loaded.preprocessing))
                readable.append(image)
            except ImageError as error:
                problems.append((image, str(error)))
        classes: list[int] = []
        model = frozen(self.loaded.model)
        place = next(self.loaded.model.parameters(), torch.empty(0)).device
        for start in range(0, len(pixels), self.settings.batch_size):
            batch = torch.stack(pixels[start : start + self.settings.batch_size])
            with torch.no_grad():
                logits = model(self.loaded.input_space.from_pixels(batch).to(place))
            classes += self.loaded.outputs.answer(logits).tolist()
        decides = self.loaded.outputs.decides
        entries: list[tuple[int, int | None, bool, str | None]] = []
        for image, predicted in zip(readable, classes, strict=True):
            label = self.source.label(image)
            right = not decides or label is None or label == predicted or self.settings.keep_wrong
            entries.append((image, predicted, right, None))
        entries += [(image, None, False, problem) for image, problem in problems]
        with self.store.transaction() as db:
            part = 1 + (db.execute("SELECT MAX(part) FROM screens").fetchone()[0] or 0)
            db.executemany(
                "INSERT INTO screens (model, image, class, usable, problem, part) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                ((self.name, *entry, part) for entry in entries),
            )
            chain.link(db, f"screens:{part}")
        self.usable.update({image: usable for image, _, usable, _ in entries})

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs to attack; see ``chosen_pairs``."""
        given = None
        if self.settings.pair_list is not None:
            given = read_pairs(self.settings.pair_list, self.source)
        return chosen_pairs(
            self.settings, len(self.source), self.usable, look=self.look, given=given
        )


def chosen_pairs(
    settings: Settings,
    count: int,
    usable: Mapping[int, bool],
    *,
    look: Callable[[Sequence[int]], None],
    given: Sequence[tuple[int, int]] | None = None,
) -> list[tuple[int, int]]:
    """The pairs to attack: both images usable, as many as asked for or as there are.

    Args:
        settings: of the run.
        count: images of the source.
        usable: by image, as far as known.
        look: finds out whether some images are usable, and enters it there.
        given: pairs in place of drawn ones.
    """
    if given is not None:
        look([image for pair in given for image in pair])
        return [pair for pair in given if usable[pair[0]] and usable[pair[1]]]
    found: list[tuple[int, int]] = []
    waiting = candidates(settings, count)
    while len(found) < settings.pairs:
        some = list(islice(waiting, max(1, min(CHUNK, settings.pairs - len(found)))))
        if not some:
            break
        look([image for pair in some for image in pair])
        found += [pair for pair in some if usable[pair[0]] and usable[pair[1]]]
        if len(usable) == count and sum(usable.values()) < 2:
            break
    return found


def planned_batches(
    settings: Settings, pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[str, str, str], list[tuple[int, int]]]]:
    """Every batch of one model, in order: method, smoothing and preset, and its pairs of images.

    Where the worst case is looked for, batches of each image with itself follow, each image once,
    under ``WORST_CASE`` in place of a preset; where maps are certified, such batches come last,
    under ``CERTIFICATE``.
    """
    alone = [(image, image) for image in dict.fromkeys(image for image, _ in pairs)]
    rounds = [[(preset, list(pairs)) for preset in settings.presets]]
    if settings.worst_case is not None:
        rounds.append([(WORST_CASE, alone)])
    if settings.certify is not None:
        rounds.append([(CERTIFICATE, alone)])
    for work in rounds:
        for method in settings.methods:
            for smoothing in settings.smoothings:
                for preset, own in work:
                    for start in range(0, len(own), settings.batch_size):
                        some = own[start : start + settings.batch_size]
                        yield (method, smoothing, preset), some


def plan_model(
    store: Store, settings: Settings, source: Source, loaded: LoadedModel, name: str
) -> None:
    """Enter the cells of one model; what was found out before is not done again.

    Raises:
        UsageError: if not a single pair can be used.
    """
    pairs = Screening(store, settings, source, loaded, name).pairs()
    if not pairs:
        raise UsageError(
            f"no pair of images can be used with {name}: all are broken or classified wrongly "
            "(--keep-wrong attacks those too)"
        )
    with store.transaction() as db:
        if db.execute("SELECT 1 FROM planned WHERE model = ?", (name,)).fetchone():
            return
        for kind, some in planned_batches(settings, pairs):
            batch = db.execute(
                "INSERT INTO batches (model, method, smoothing, preset) VALUES (?, ?, ?, ?)",
                (name, *kind),
            ).lastrowid
            db.executemany(
                "INSERT INTO cells (batch, model, method, smoothing, preset, image, target) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((batch, name, *kind, *pair) for pair in some),
            )
        db.execute("INSERT INTO planned VALUES (?, ?)", (name, len(pairs)))
        chain.link(db, f"plan:{name}")


def unplanned(store: Store, settings: Settings) -> list[str]:
    """The models whose cells are not entered yet."""
    known = {row[0] for row in store.rows("SELECT model FROM planned")}
    return [model.key for model in settings.models if model.key not in known]
