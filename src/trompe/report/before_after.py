"""What hardening bought and cost: a run of the hardened network beside one of the original."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trompe.audit import Run
from trompe.audit.changed_options import changed_options
from trompe.audit.leaderboard import EPSILON, TAU, by_image, status
from trompe.audit.provenance import outputs_meaning
from trompe.audit.results import Row
from trompe.errors import UsageError
from trompe.report.tables import Table
from trompe.robustness.evaluation import NOTHING, SUCCESS
from trompe.robustness.shares import Share, share

_OF_MODELS = ("models", "code_of_parts")


@dataclass(frozen=True)
class Change:
    """One method under both networks, on the images of which both are known.

    Args:
        method: of the cells.
        defence: its smoothing; ``none`` for none.
        before: explanations of the original network that withstand.
        after: of the hardened one, of the same images.
        unknown: images attacked in both runs of which one is not known to withstand or to break.
        similar_before: median over the images of the worst correlation with the map of the image
            as it was; ``None`` if no attack was judged.
        similar_after: the same of the hardened network.
    """

    method: str
    defence: str
    before: Share
    after: Share
    unknown: int
    similar_before: float | None
    similar_after: float | None

    @property
    def name(self) -> str:
        """The method, with its smoothing if it has one."""
        smoothed = "" if self.defence == "none" else f" with {self.defence}"
        return f"{self.method.replace('_', ' ')}{smoothed}"

    @property
    def sentence(self) -> str:
        """What changed, and whether so few images show it."""
        left_out = f"; of {self.unknown} more images nothing is known" if self.unknown else ""
        return (
            f"{self.name}: {self.before} withstood before, {self.after} after{left_out}. "
            f"{_shown(self.before, self.after, 'More explanations withstand', 'Fewer withstand')} "
            f"The worst correlation found with the map of the unchanged image was "
            f"{_number(self.similar_before)} before and {_number(self.similar_after)} after "
            "(median)."
        )


@dataclass(frozen=True)
class BeforeAfter:
    """Both networks, method by method, and their answers.

    Args:
        original: the network before, as in tables.
        hardened: the one after.
        digest: of the run of the original.
        changes: one per method and smoothing.
        right_before: images that the original classifies right; of none, where no label is known.
        right_after: of the same images, what the hardened network does.
        same_answer: of the same images, those that get the same answer of both.
        note: what else sets the runs apart; empty if nothing does.
    """

    original: str
    hardened: str
    digest: str
    changes: tuple[Change, ...]
    right_before: Share
    right_after: Share
    same_answer: Share
    note: str

    @property
    def rule(self) -> str:
        """When an explanation counts as one that withstands."""
        return (
            f"An explanation withstands if no change within {255 * EPSILON:.0f}/255 that keeps the "
            f"answer was found to bring its correlation with the original map below {TAU}."
        )

    @property
    def gains(self) -> list[str]:
        """A sentence per method."""
        return [one.sentence for one in self.changes]

    @property
    def costs(self) -> list[str]:
        """What became of the answers."""
        found = []
        if self.right_before.n:
            found.append(
                f"Answers that are right: {self.right_before} before, {self.right_after} after. "
                f"{_shown(self.right_before, self.right_after, 'More are right', 'Fewer are')}"
            )
        if self.same_answer.n:
            found.append(f"Images that get the same answer of both networks: {self.same_answer}.")
        return found or ["Nothing is known of the answers: they are no classes."]

    @property
    def table(self) -> Table:
        """The same in numbers."""
        rows = tuple(
            (
                *(one.method, one.defence, one.before.n, one.unknown),
                *(v for s in (one.before, one.after) for v in _percent(s)),
                *(one.similar_before, one.similar_after),
            )
            for one in self.changes
        )
        ends = ("withstand", "from", "to")
        columns = (
            *("method", "smoothing", "images", "not known"),
            *(f"{end} {when}, %" for when in ("before", "after") for end in ends),
            *("worst PCC before, median", "worst PCC after, median"),
        )
        return Table("hardening", "Before and after hardening", columns, rows)


def before_after(before: Run, after: Run) -> BeforeAfter:
    """Compare a run of a hardened network with a run of the original.

    Only images that both runs attacked count, so that both shares are of the same images.

    Args:
        before: of the original network.
        after: of the hardened one.

    Raises:
        UsageError: if the runs have other images or settings, are not finished, or are not of one
            network each.
        StoreError: if the run before is not as it was entered.
    """
    before.store.check_chain()
    names = [_only_model(run) for run in (before, after)]
    records = [{k: v for k, v in r.record.items() if k not in _OF_MODELS} for r in (before, after)]
    if records[0].get("source") != records[1].get("source"):
        raise UsageError(
            f"'{before.folder}' and '{after.folder}' are of other images: audit both networks on "
            "the same ones"
        )
    if changed := changed_options(*records):
        raise UsageError(
            f"'{before.folder}' and '{after.folder}' have other settings: {'; '.join(changed)}: "
            "audit both networks with the same"
        )
    weights = [
        run.facts(name)["weights_of"] for run, name in zip((before, after), names, strict=True)
    ]
    if names[0] == names[1] and weights[0] == weights[1]:
        raise UsageError(f"both runs are of the same network, {names[0]}: name the original's run")
    searching = before.settings.worst_case is not None
    groups = [_groups(run) for run in (before, after)]
    changes = tuple(
        _change(kind, groups[0][kind], groups[1][kind], searching)
        for kind in groups[0]
        if kind in groups[1]
    )
    if not any(one.before.n + one.unknown for one in changes):
        raise UsageError(
            f"'{before.folder}' and '{after.folder}' attacked no image in common: --keep-wrong "
            "attacks the same ones whatever the networks answer"
        )
    right_before, right_after, same_answer = _answers(before, after, names)
    return BeforeAfter(
        names[0],
        names[1],
        before.digest,
        changes,
        right_before,
        right_after,
        same_answer,
        _note(before, after),
    )


def _only_model(run: Run) -> str:
    """The name of the one network of a finished run."""
    if len(run.settings.models) != 1:
        raise UsageError(
            f"'{run.folder}' is of {len(run.settings.models)} networks: before and after take a "
            "run of one network each"
        )
    if run.status.open or not run.status.planned:
        raise UsageError(
            f"'{run.folder}' is not finished: start its audit again, it goes on where it was"
        )
    return run.settings.models[0].key


def _groups(run: Run) -> dict[tuple[str, str], list[Row]]:
    """Attacks and searches by method and smoothing, those that failed with them."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in (*run.rows, *run.searches):
        found.setdefault((row.method, row.defence), []).append(row)
    return found


def _change(
    kind: tuple[str, str], before: Sequence[Row], after: Sequence[Row], searching: bool
) -> Change:
    """One method, on the images that both runs attacked."""
    sides = [by_image(before), by_image(after)]
    words = [
        tuple(status(side[image], TAU, EPSILON, searching=searching) for side in sides)
        for image in sides[0]
        if image in sides[1]
    ]
    known = [pair for pair in words if set(pair) <= {SUCCESS, NOTHING}]
    both = [image for image in sides[0] if image in sides[1]]
    withstood, similar = (
        [share(sum(pair[k] == NOTHING for pair in known), len(known)) for k in (0, 1)],
        [_median([_worst(side[image]) for image in both]) for side in sides],
    )
    unknown = len(words) - len(known)
    return Change(*kind, withstood[0], withstood[1], unknown, similar[0], similar[1])


def _worst(rows: Sequence[Row]) -> float | None:
    """The least correlation with the original map within the radius, the answer kept."""
    values = [
        row.values.get("map_original_pcc", -1.0)
        for row in rows
        if row.message is None
        and row.values.get("class_kept") == 1.0
        and 0 < row.values.get("image_linf", 2.0) <= EPSILON + 1e-6
    ]
    return min(values, default=None)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _answers(before: Run, after: Run, names: Sequence[str]) -> tuple[Share, Share, Share]:
    """Right before, right after, and the same, of the images that both networks classified."""
    none = share(0, 0)
    found = []
    for run, name in zip((before, after), names, strict=True):
        meaning = outputs_meaning(run.facts(name))
        if meaning is not None and not meaning.decides:
            return none, none, none
        rows = run.store.rows(
            "SELECT s.image, s.class, i.label FROM screens s JOIN images i ON i.id = s.image "
            "WHERE s.model = ? AND s.class IS NOT NULL",
            (name,),
        )
        found.append({image: (answer, label) for image, answer, label in rows})
    both = [(found[0][image], found[1][image]) for image in found[0] if image in found[1]]
    labelled = [pair for pair in both if pair[0][1] is not None]
    right = [share(sum(p[k][0] == p[k][1] for p in labelled), len(labelled)) for k in (0, 1)]
    same = share(sum(one[0] == two[0] for one, two in both), len(both))
    return right[0], right[1], same


def _note(before: Run, after: Run) -> str:
    """Whether the runs were made by unlike software."""
    made = [json.dumps(run.versions, sort_keys=True) for run in (before, after)]
    if made[0] == made[1]:
        return ""
    return "The runs were made with unlike versions of software: a difference may come from there."


def _shown(before: Share, after: Share, more: str, fewer: str) -> str:
    """What the intervals allow to say."""
    if after.low > before.high:
        return f"{more}, beyond both intervals."
    if after.high < before.low:
        return f"{fewer}, beyond both intervals."
    return "The intervals overlap: so few images show no difference."


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"


def _percent(one: Share) -> tuple[float | None, float, float]:
    return (None if not one.n else 100 * one.value, 100 * one.low, 100 * one.high)
