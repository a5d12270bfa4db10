"""What the paper reports next to what came out here, judged beyond the noise of so few images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Agreement = Literal["agrees", "differs", "open", "failed"]


@dataclass(frozen=True)
class Claim:
    """Something the paper says, and what came out here.

    Args:
        what: is compared.
        paper: what the paper reports, in words.
        ours: what was found here, in words, with its interval.
        agreement: ``agrees`` where the whole 95 % interval of ours is as the paper says,
            ``differs`` where nothing of it is, ``open`` where it is partly so: too few images to
            tell; ``failed`` where nothing could be computed.
        n: how many images, pairs or draws the numbers are of.
    """

    what: str
    paper: str
    ours: str
    agreement: Agreement
    n: int


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median, free of any assumption on the distribution.

    It reaches from the k-th smallest to the k-th largest value, with the largest k such that
    fewer than k of n fair coins show heads with a probability of at most 2.5 % (order statistics).
    Below six values there is none, and it is the whole line.
    """
    ordered, n = sorted(values), len(values)
    tail, k = 0.0, 0
    for heads in range(n):
        tail += math.comb(n, heads) / 2**n
        if tail > 0.025:
            break
        k = heads + 1
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)


def claim(
    what: str,
    paper: str,
    values: Iterable[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    form: str = ".3g",
) -> Claim:
    """Compare the median of some values with a range of the paper.

    Args:
        what: is compared.
        paper: what the paper reports, in words.
        values: one per image, pair or draw; those that are no numbers are left out.
        low: the least median that agrees with the paper.
        high: the largest one.
        form: how numbers are written.
    """
    known = [value for value in values if value == value]
    if not known:
        return Claim(what, paper, "no value", "failed", 0)
    middle, (least, largest) = statistics.median(known), median_interval(known)
    ours = f"{middle:{form}}"
    if math.isfinite(least):
        ours += f" ({least:{form}} to {largest:{form}})"
    agreement: Agreement = "open"
    if low <= least and largest <= high:
        agreement = "agrees"
    elif largest < low or least > high:
        agreement = "differs"
    return Claim(what, paper, ours, agreement, len(known))


def failed(what: str, paper: str, why: object) -> Claim:
    """Nothing could be computed."""
    return Claim(what, paper, str(why), "failed", 0)
