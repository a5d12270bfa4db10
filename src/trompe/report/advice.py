"""What to do, as far as it follows from a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trompe.audit import Run
from trompe.audit.faithful import DELETION, INSERTION, SAME_ANSWER
from trompe.audit.leaderboard import EPSILON, TAU, accuracy, by_image, status
from trompe.audit.results import Row
from trompe.errors import StoreError
from trompe.metrics import pcc
from trompe.report.words import aimed, fooled, share
from trompe.robustness.evaluation import NOTHING, SUCCESS, UNKNOWN
from trompe.robustness.shares import Share
from trompe.robustness.shares import share as share_of

#: A defended map that correlates less with the plain one, of a clean image, explains another thing.
FAITHFUL = 0.5
#: Nor is a defence advised by which insertion less deletion falls by more than this probability.
WORSE = 0.05

Agreement = Callable[[Row, Row], float | None]
"""How alike the maps of one clean image are, of a plain and of a defended cell."""


@dataclass(frozen=True)
class Comparison:
    """A defence beside the plain method, on the images of which both are known.

    Args:
        model: of the cells.
        method: of the cells.
        smoothing: the defence.
        plain: robust within the radius without it.
        defended: robust with it, of the same images.
        agreement: median correlation of the maps of the clean images; ``None`` if not known.
        curves: by how much the area under the insertion curve less that under the deletion curve
            is larger for its clean maps, median over the images; ``None`` if not known.
        same_answer: the images of which the explained, smoothed network has the answer of the one
            that decides; ``None`` if no other network is explained.
    """

    model: str
    method: str
    smoothing: str
    plain: Share
    defended: Share
    agreement: float | None
    curves: float | None = None
    same_answer: Share | None = None

    @property
    def helps(self) -> bool:
        """Whether it is better beyond what so few images can say: the intervals are apart."""
        return self.plain.n > 0 and self.defended.low > self.plain.high

    @property
    def faithful(self) -> bool:
        """Whether its maps are about what the plain ones are about, and about the network."""
        return not self.unfaithful

    @property
    def unfaithful(self) -> list[str]:
        """What speaks against its maps, in words."""
        found = []
        if self.agreement is None:
            found.append("how alike its maps of the clean images are to the plain ones is unknown")
        elif self.agreement < FAITHFUL:
            found.append(
                f"its maps of the clean images correlate only {self.agreement:.2f} with the plain "
                "ones (median)"
            )
        if self.curves is not None and self.curves < -WORSE:
            found.append(
                "its maps point less to what the network needs (insertion less deletion area "
                f"{self.curves:+.2f}, median)"
            )
        if self.same_answer is not None and self.same_answer.value < 0.5:
            found.append(
                f"the smoothed network has the answer of the real one in only {self.same_answer}"
            )
        return found


def agreement_in(run: Run) -> Agreement:
    """Compares the maps of clean images that a run has kept."""

    def compare(plain: Row, defended: Row) -> float | None:
        try:
            first, second = (run.arrays(row)["map_original"] for row in (plain, defended))
        except (StoreError, KeyError):  # damaged: the verification says so
            return None
        value = float(pcc(first, second)[0])
        return value if value == value else None

    return compare


def comparisons(
    rows: Sequence[Row], agreement: Agreement, searches: Sequence[Row] = ()
) -> Iterator[Comparison]:
    """Every defence of a run beside its method, model by model, method by method.

    Args:
        rows: the attacks of the run.
        agreement: of a plain and a defended cell of one clean image.
        searches: for the worst case, if the run has any.
    """
    searching = bool(searches)
    rows = (*rows, *searches)
    kinds = dict.fromkeys((r.model, r.method, r.smoothing) for r in rows if r.smoothing)
    for model, method, smoothing in kinds:
        own = [r for r in rows if (r.model, r.method) == (model, method) and r.message is None]
        plain = by_image([r for r in own if r.smoothing is None])
        defended = by_image([r for r in own if r.smoothing == smoothing])
        before, after, alike = 0, 0, []
        known = 0
        curves, answers = [], []
        for image in plain:
            if image not in defended:
                continue
            words = [
                status(some[image], TAU, EPSILON, searching=searching) for some in (plain, defended)
            ]
            if not set(words) <= {SUCCESS, NOTHING}:
                continue
            known += 1
            before += words[0] == NOTHING
            after += words[1] == NOTHING
            if (value := agreement(plain[image][0], defended[image][0])) is not None:
                alike.append(value)
            gaps = [_gap(some[image]) for some in (plain, defended)]
            if gaps[0] is not None and gaps[1] is not None:
                curves.append(gaps[1] - gaps[0])
            if (answer := _value(defended[image], SAME_ANSWER)) is not None:
                answers.append(answer)
        yield Comparison(
            model,
            method,
            str(smoothing),
            share_of(before, known),
            share_of(after, known),
            statistics.median(alike) if alike else None,
            statistics.median(curves) if curves else None,
            share_of(round(sum(answers)), len(answers)) if answers else None,
        )


def _value(cells: Sequence[Row], name: str) -> float | None:
    """What is kept under a name of one image's cells, all of which know the same clean map."""
    return next((row.values[name] for row in cells if name in row.values), None)


def _gap(cells: Sequence[Row]) -> float | None:
    """The area under the insertion curve less that under the deletion curve, of one clean image."""
    inserted, deleted = (_value(cells, name) for name in (INSERTION, DELETION))
    return None if inserted is None or deleted is None else inserted - deleted


def _defences(rows: Sequence[Row], agreement: Agreement, searches: Sequence[Row]) -> Iterator[str]:
    for one in comparisons(rows, agreement, searches):
        if not one.helps:
            continue
        name = f"{one.method.replace('_', ' ')} on {one.model}"
        what = (
            f"within {255 * EPSILON:.0f}/255 {one.defended} keep it, of the same images "
            f"{one.plain} without"
        )
        if one.faithful:
            yield (
                f"Explain {name} with {one.smoothing}: {what}; its maps of the clean images "
                f"correlate {one.agreement:.2f} with the plain ones (median){_as_faithful(one)}."
            )
        else:
            yield (
                f"{one.smoothing} protects {name} ({what}), but is not advised: "
                f"{'; '.join(one.unfaithful)}."
            )


def _as_faithful(one: Comparison) -> str:
    """What speaks for the maps of an advised defence, where it is known."""
    words = ""
    if one.curves is not None:
        words += f", their insertion less deletion area differs by {one.curves:+.2f}"
    if one.same_answer is not None:
        words += f", and the smoothed network has the real one's answer in {one.same_answer}"
    return words


def advice(
    rows: Sequence[Row],
    agreement: Agreement = lambda plain, defended: None,
    searches: Sequence[Row] = (),
) -> list[str]:
    """What to do, given the cells of all models; those that failed prove nothing.

    A defence is advised for a method only where, on the same images, more explanations withstand
    within the same radius than without, beyond both 95 % intervals, and its maps are faithful:
    they correlate with the plain ones, their insertion and deletion curves are no worse, and a
    network that is explained in place of the real one has its answer.

    Args:
        rows: of the run.
        agreement: of a plain and a defended cell of one clean image.
        searches: for the worst case, if the run has any.
    """
    found = []
    done = [row for row in rows if row.message is None]
    plain = [row for row in done if row.smoothing is None]
    for model, method in dict.fromkeys((row.model, row.method) for row in plain):
        own = [row for row in plain if (row.model, row.method) == (model, method)]
        name = f"{method.replace('_', ' ')} on {model}"
        count = sum(map(fooled, own))
        looked = [
            row
            for row in searches
            if (row.model, row.method, row.smoothing) == (model, method, None)
        ]
        if share(own) >= 0.3:
            what = "decide what it shows" if any(map(aimed, own)) else "make it another one"
            found.append(
                f"{name}: do not take a single unsmoothed explanation as evidence: whoever "
                f"provides the image can {what} ({count} of {len(own)} cases)."
            )
        elif not looked:
            found.append(
                f"{name}: an attack that finds nothing proves nothing ({len(own) - count} of "
                f"{len(own)} cases): look for the worst case with 'trompe robustness' before you "
                "rely on these explanations."
            )
        if looked:
            every = [r for r in rows if (r.model, r.method, r.smoothing) == (model, method, None)]
            worst = accuracy((*every, *looked), TAU, EPSILON, searching=True)
            found.append(
                f"{name}: looking for the worst map within {255 * EPSILON:.0f}/255, {worst} keep "
                f"their explanation (a correlation of {TAU} with the original map): an upper bound "
                "of what nobody could break."
            )
            continue
        words = [status(some, TAU, EPSILON) for some in by_image(own).values()]
        if words.count(UNKNOWN) > 0.5 * len(words):
            found.append(
                f"{name}: nothing is known within {255 * EPSILON:.0f}/255 of "
                f"{words.count(UNKNOWN)} of {len(words)} images, the attacks lie outside or "
                "changed the answer: 'trompe robustness' stays inside."
            )
    found += _defences(rows, agreement, searches)
    if plain and share(plain) > 0 and all(row.smoothing is None for row in rows):
        found.append("Try what smoothing buys: run the audit with --smoothing beta=0.8.")
    flagged = sum(bool(row.flags) for row in done)
    if done and flagged > 0.3 * len(done):
        found.append(
            f"{flagged} of {len(done)} cells carry a flag: read below why they may mislead before "
            "you quote a number."
        )
    return found
