"""How a report begins: one attack as pictures, and the verdict in plain sentences."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from trompe.audit import Run
from trompe.audit.batches import WORST_CASE
from trompe.audit.leaderboard import EPSILON, TAU, blind, by_image, status
from trompe.audit.results import Row
from trompe.errors import StoreError
from trompe.report.gallery import Exhibit, exhibit, nearness
from trompe.report.words import OFTEN, UNKNOWN, UNSEEN, fooled, verdict
from trompe.robustness.evaluation import SUCCESS
from trompe.robustness.shares import Share, share


@dataclass(frozen=True)
class Verdict:
    """Of how many images a plain explanation became another one, the answer kept.

    Args:
        model: of the run.
        method: of the run.
        broken: the images of which an attack towards a target replaced the explanation, or of
            which the search for the worst case within the leaderboard's radius broke it.
        judged: whether at least one attack kept the answer, so that something is known.
        unseen: the number of images that withstood, but on a network with kinks that no smoothing
            covers: nothing is known of them.
    """

    model: str
    method: str
    broken: Share
    judged: bool
    unseen: int = 0

    @property
    def name(self) -> str:
        """Method and model."""
        return f"{self.method.replace('_', ' ')} on {self.model}"

    @property
    def words(self) -> str:
        """How manipulable the explanation is, in a few words."""
        known = verdict(self.broken.value) if self.judged else UNKNOWN
        if self.unseen and self.broken.value < OFTEN:
            known = UNSEEN
        return f"{self.name}: {known}"

    @property
    def percent(self) -> str:
        """The share, in per cent."""
        return f"{100 * self.broken.value:.0f}"

    @property
    def interval(self) -> str:
        """Its 95 % interval, in words."""
        return f"{100 * self.broken.low:.0f} to {100 * self.broken.high:.0f} %"

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence."""
        one = self.broken
        kinks = (
            f" Of the other {self.unseen} nothing is known: the network has kinks that no "
            "smoothing covers, or a gradient that is not that of its output, past which an attack "
            "by derivatives may not see."
        )
        return (
            f"{self.name}: for {one.count} of {one.n} images a change that keeps the network's "
            f"answer made the explanation another one (95 % interval {self.interval})."
        ) + (kinks if self.unseen else "")


def verdicts(run: Run) -> list[Verdict]:
    """Per model and method without a defence: of how many images an explanation was broken.

    An image counts once, however many attacks were tried on it: attacks on one image are no
    independent draws, so that only images can be behind an interval. Images all of whose attacks
    failed to run are not counted.
    """
    found = []
    searched = bool(run.searches)
    for model, method in dict.fromkeys((row.model, row.method) for row in run.rows):
        own = [
            row
            for row in (*run.rows, *run.searches)
            if (row.model, row.method, row.smoothing) == (model, method, None)
            and row.message is None
        ]
        images = by_image(own)
        if not images:
            continue
        broken = unseen = 0
        for rows in images.values():
            attacks = [row for row in rows if row.preset != WORST_CASE]
            within = status(rows, TAU, EPSILON, searching=searched) == SUCCESS
            lost = within or any(map(fooled, attacks))
            broken += lost
            unseen += not lost and blind(rows)
        judged = any(row.values.get("class_kept") == 1 for row in own)
        found.append(Verdict(model, method, share(broken, len(images)), judged, unseen))
    return found


def lead(run: Run) -> tuple[Exhibit | None, list[str]]:
    """The attack shown first, and why others before it could not be shown.

    It is the median one of those that succeeded against a plain explanation, no best case; where
    none did, the one that came farthest.
    """
    plain = [row for row in run.done if row.smoothing is None] or run.done
    ranked = sorted(plain, key=nearness, reverse=True)
    good = [row for row in ranked if fooled(row)]
    middle = len(good) // 2
    problems: list[str] = []
    for row in [*good[middle:], *good[:middle], *ranked][:5]:
        try:
            found = exhibit(run, row)
            return dataclasses.replace(found, caption=f"{found.caption} {_chosen(row)}"), problems
        except StoreError as error:
            problems.append(str(error))
    return None, problems


def _chosen(row: Row) -> str:
    """Why this attack is the one shown."""
    if fooled(row):
        return "Of the attacks that succeeded this is the median one, not the best."
    return "No attack succeeded: this is the one that came farthest."
