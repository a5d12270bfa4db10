"""From counts over noisy copies to what holds in the whole ball; proofs in docs/certificates.md.

All statements hold together with chance ``confidence``: the chance of being wrong is shared out
over them (``SHARES``), and each holds at every radius, for every point of the ball, at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from trompe.certificates import binomial
from trompe.certificates.gaussian_shift import (
    least_after,
    most_after,
    projected_shift,
    total_variation,
    weighted_shift,
)
from trompe.certificates.noise_statistics import Pilot
from trompe.certificates.upper import WIDEN

SHARES = {
    "along": 1 / 4,
    "spread": 1 / 6,
    "drift": 1 / 12,
    "marked": 1 / 8,
    "votes": 1 / 8,
    "away": 1 / 8,
    "label": 1 / 8,
}
"""How the chance of being wrong is shared out."""
_SIZE = 1 + 1e-9
"""At least the norm of a standardised map, rounding included."""

Floats = NDArray[np.float64]


class Counts(Protocol):
    """What bounds are computed from: ``Counted``, or what was kept of one."""

    @property
    def pilot(self) -> Pilot:
        """What was looked at."""

    @property
    def samples(self) -> int:
        """How many fresh samples were counted."""

    @property
    def spread(self) -> float:
        """The largest eigenvalue of their covariance, within 0..1."""

    def counts(self, name: str) -> NDArray[np.int64]:
        """How often each level of ``along`` and ``away``, square and label was hit."""


@dataclass(frozen=True)
class InBall:
    """What holds at every point of one ball.

    Args:
        pcc: At least the correlation of the smoothed standardised map with that of the image
            itself; -1 where nothing is known.
        heatmap_l1: At most the l1 change of the smoothed heat map, 0..2.
        members: The squares that are among the k of the largest vote, bool [P].
        votes: 1 where a square is among the k largest of most noisy maps, -1 where it is not, 0
            where that is not known, int8 [P].
        label: Whether the smoothed classifier keeps its class.
    """

    pcc: float
    heatmap_l1: float
    members: NDArray[np.bool_]
    votes: NDArray[np.int8]
    label: bool


def _shares(count: int) -> Floats:
    """How thresholds share out a chance: half for the lowest, which nearly all samples reach.

    What may lie below it weighs most, and is known worst.
    """
    if count == 1:
        return np.ones(1)
    return np.concatenate([[0.5], np.full(count - 1, 0.5 / (count - 1))])


class NoiseBounds:
    """What the samples say of the expectations at the image, and hence in balls around it.

    Args:
        counted: What was counted over fresh samples.
        confidence: That all statements hold, below 1.
        radii: How many radii ``within`` is asked for: the votes' tests are repeated for each.
    """

    def __init__(self, counted: Counts, confidence: float, radii: int) -> None:
        self.counted, self.radii = counted, radii
        self.alpha = {name: share * (1 - confidence) for name, share in SHARES.items()}
        n, along, away = counted.samples, counted.counts("along"), counted.counts("away")
        marked, label = counted.counts("marked"), counted.counts("label")
        size = len(marked)
        self.along = binomial.lower_bound(along, n, self.alpha["along"] * _shares(len(along)))
        self.away = binomial.upper_bound(away, n, self.alpha["away"] / len(away))
        self.low = binomial.lower_bound(marked, n, self.alpha["marked"] / (2 * size))
        self.high = binomial.upper_bound(marked, n, self.alpha["marked"] / (2 * size))
        self.label = float(binomial.lower_bound(label, n, self.alpha["label"]))
        self.variance = self._variance()

    def _variance(self) -> float:
        """At least ``E <d, u>^2`` for every direction d across the expected map.

        The largest of these belongs to one direction, which does not depend on the samples:
        Chernoff's bound along it needs no factor for the dimension. Its mean over the samples is at
        most the largest eigenvalue of their covariance, plus the square of the mean along it, which
        has expectation 0 and the variance sought.
        """
        n, spread = self.counted.samples, self.counted.spread
        found = 1.0
        for _ in range(30):
            drift = binomial.deviation(found, n, self.alpha["drift"])
            mean = min(spread * WIDEN + drift**2, 1.0)
            found = min(found, binomial.mean_above(mean, n, self.alpha["spread"]))
        return min(_SIZE * found, 1.0)

    def along_after(self, r: float) -> float:
        """At least ``E <u, w>`` at every point within r sigma: each level set as a half space."""
        levels = self.counted.pilot.along.numpy()
        steps = np.diff(levels, prepend=-_SIZE)
        return float((steps * least_after(self.along, r)).sum()) - _SIZE

    def pcc(self, r: float) -> float:
        """At least the correlation; -1 where the map may turn any way."""
        along, across = self.along_after(r), projected_shift(self.variance, r)
        if along <= 0 or across >= along:
            return -1.0
        return math.sqrt(1 - (across * WIDEN / along) ** 2) / WIDEN

    def heatmap_l1(self, r: float) -> float:
        """At most the l1 change: by total variation, or by how far noisy maps are from h0."""
        levels = self.counted.pilot.away.numpy()
        ends = np.concatenate([[0.0], levels, [2.0]])
        chances = np.concatenate([[1.0], self.away])
        shift = [weighted_shift(float(p), r) for p in chances]
        layered = float((np.diff(ends) * np.asarray(shift)).sum())
        return min(2 * total_variation(r), layered * WIDEN)

    def members(self, r: float) -> NDArray[np.bool_]:
        """The squares whose least vote is above the largest vote of all but k - 1 others."""
        low, high = least_after(self.low, r), most_after(self.high, r)
        rivals = (high[None, :] >= low[:, None]).sum(axis=1) - (high >= low)
        return np.asarray(rivals <= self.counted.pilot.top - 1)

    def votes(self, r: float) -> NDArray[np.int8]:
        """Anani et al. 2025, with Holm's correction: a chance above ``Phi(r)`` stays above 1/2."""
        hits, n = self.counted.counts("marked"), self.counted.samples
        threshold = 0.5 * (1 + math.erf(r / math.sqrt(2)))
        p = np.stack(
            [
                binomial.surely_above(hits, n, threshold),
                binomial.surely_below(hits, n, 1 - threshold),
            ]
        )
        on, off = binomial.holm(p, self.alpha["votes"] / self.radii)
        return on.astype(np.int8) - off.astype(np.int8)

    def label_after(self, r: float) -> float:
        """At least the chance of the label under noise, at every point within r sigma."""
        return float(least_after(np.asarray(self.label), r))

    @property
    def label_radius(self) -> float:
        """The largest r for which the label surely stays; 0 if there is none."""
        return max(0.0, float(ndtri(self.label)) / WIDEN) if self.label < 1 else math.inf

    def within(self, r: float) -> InBall:
        """All statements for the ball of radius r sigma."""
        return InBall(
            pcc=self.pcc(r),
            heatmap_l1=self.heatmap_l1(r),
            members=self.members(r),
            votes=self.votes(r),
            label=self.label_after(r) > 0.5,
        )
