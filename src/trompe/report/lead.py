"""How a report begins: one attack as pictures, and the verdict in plain sentences."""

from __future__ import annotations

from trompe.audit import Run
from trompe.audit.leaderboard import by_image
from trompe.errors import StoreError
from trompe.report.gallery import Exhibit, exhibit, nearness
from trompe.report.words import fooled
from trompe.robustness.shares import share


def verdict_sentences(run: Run) -> list[str]:
    """Per model and method without a defence: of how many images an explanation was replaced.

    An image counts once, however many attacks were tried on it: attacks on one image are no
    independent draws, so that only images can be behind an interval. Images all of whose attacks
    failed to run are not counted.
    """
    found = []
    for model, method in dict.fromkeys((row.model, row.method) for row in run.rows):
        own = [r for r in run.done if (r.model, r.method) == (model, method)]
        images = by_image([row for row in own if row.smoothing is None])
        if not images:
            continue
        broken = share(sum(any(map(fooled, rows)) for rows in images.values()), len(images))
        found.append(
            f"{method.replace('_', ' ')} on {model}: for {broken.count} of {broken.n} images a "
            "change that keeps the predicted class made the explanation another one (95 % interval "
            f"{100 * broken.low:.0f} to {100 * broken.high:.0f} %)."
        )
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
            return exhibit(run, row), problems
        except StoreError as error:
            problems.append(str(error))
    return None, problems
