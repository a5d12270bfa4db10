"""What to do, as far as it follows from a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trompe.audit import Run
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
    """

    model: str
    method: str
    smoothing: str
    plain: Share
    defended: Share
    agreement: float | None

    @property
    def helps(self) -> bool:
        """Whether it is better beyond what so few images can say: the intervals are apart."""
        return self.plain.n > 0 and self.defended.low > self.plain.high

    @property
    def faithful(self) -> bool:
        """Whether its maps are about what the plain ones are about."""
        return self.agreement is not None and self.agreement >= FAITHFUL


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
        yield Comparison(
            model,
            method,
            str(smoothing),
            share_of(before, known),
            share_of(after, known),
            statistics.median(alike) if alike else None,
        )


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
                f"correlate {one.agreement:.2f} with the plain ones (median)."
            )
        else:
            unlike = "is not known" if one.agreement is None else f"is {one.agreement:.2f}"
            yield (
                f"{one.smoothing} protects {name} ({what}), but is not advised: how alike its maps "
                f"of the clean images are to those it replaces {unlike} (median correlation)."
            )


def advice(
    rows: Sequence[Row],
    agreement: Agreement = lambda plain, defended: None,
    searches: Sequence[Row] = (),
) -> list[str]:
    """What to do, given the cells of all models; those that failed prove nothing.

    A defence is advised for a method only where, on the same images, more explanations withstand
    within the same radius than without, beyond both 95 % intervals, and its maps are faithful.

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
