"""One honest number: the share of all drawn images whose explanation withstood every attempt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.robustness.controls import Control
from trompe.robustness.doubts import KINKS_REMAIN, MEANING
from trompe.robustness.likeness import MEASURES, chance
from trompe.robustness.result import RobustnessResult
from trompe.robustness.shares import Share, share

TAUS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds of a curve."""

SUCCESS, NOTHING, UNKNOWN, FAILED = "success", "nothing found", "unknown", "failed"
STATUS = {
    SUCCESS: "an attempt within the radius kept the answer and brought the map below tau",
    NOTHING: "no attempt did: nothing was found, which is no proof",
    UNKNOWN: "no attempt could be judged, because the answer was never kept; or none succeeded, "
    "and the network has kinks that smoothing does not replace, or a gradient that is not that of "
    "its output, where derivatives miss much",
    FAILED: "the image could not be read, explained or attacked",
}
"""What became of an image, in words that are never one another."""


@dataclass(frozen=True)
class Evaluation:
    """The same images attacked within one radius or several.

    Args:
        names: of all images drawn, those that failed with them.
        failed: why an image could not be read or explained, by name.
        attempts: by radius in pixel units, what was found; all on the images that did not fail,
            in order.
        floor: by radius and name what harmless changes of the clean images do.
        stopped: ``finished``, or ``interrupted`` before all images were done.
        again: whether attacks failed to run, which the same call tries again.
    """

    names: Sequence[str]
    failed: Mapping[str, str]
    attempts: Mapping[float, RobustnessResult]
    floor: Mapping[float, Mapping[str, Control]]
    stopped: str = "finished"
    again: bool = False

    def worst(self, radius: float, measure: str = "pcc") -> Tensor:
        """The worst value of every attempt WITHIN the radius, [B] of the images that did not fail.

        What was found within a smaller radius lies within a larger one, too; what lies outside
        counts for nothing.
        """
        found = [one.worst[measure] for size, one in self.attempts.items() if size <= radius]
        if not found:
            raise UsageError(f"nothing was attacked within {radius:g}")
        values = torch.stack(found)
        return values.amax(dim=0) if MEASURES[measure].distance else values.amin(dim=0)

    def status(self, radius: float, tau: float, measure: str = "pcc") -> list[str]:
        """What became of each image that was drawn: a key of ``STATUS``."""
        within = [one for size, one in self.attempts.items() if size <= radius]
        value = self.worst(radius, measure)
        broken = value > tau if MEASURES[measure].distance else value < tau
        known = torch.stack([one.tried for one in within]).any(dim=0) & ~value.isnan()
        blind = [any(KINKS_REMAIN in one.flags[i] for one in within) for i in range(len(value))]
        known &= broken | ~torch.tensor(blind)
        rest = iter(zip(broken.tolist(), known.tolist(), strict=True))
        found = []
        for name in self.names:
            if name in self.failed:
                found.append(FAILED)
                continue
            lost, told = next(rest)
            found.append((SUCCESS if lost else NOTHING) if told else UNKNOWN)
        return found

    def accuracy(self, radius: float, tau: float = 0.5, measure: str = "pcc") -> Share:
        """Robust-explanation accuracy: images with ``nothing found``, of ALL that were drawn."""
        status = self.status(radius, tau, measure)
        return share(status.count(NOTHING), len(status))

    def report(self, tau: float = 0.5) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "format": "trompe-robustness-1",
            "images": len(self.names),
            "failed": dict(self.failed),
            "tau": tau,
            "status_means": STATUS,
            "radii": [self._radius(radius, tau) for radius in sorted(self.attempts)],
            "flags_mean": {name: MEANING[name] for name in sorted(self._flags())},
        }

    def _flags(self) -> set[str]:
        return {f for one in self.attempts.values() for flags in one.flags for f in flags}

    def _radius(self, radius: float, tau: float) -> dict[str, Any]:
        attempt = self.attempts[radius]
        status = self.status(radius, tau)
        shape = attempt.maps.shape
        return {
            "radius": radius,
            "norm": attempt.norm,
            "status": {word: status.count(word) for word in STATUS},
            "robust_explanation_accuracy": _share(self.accuracy(radius, tau)),
            "answers_flipped": _share(
                share(int((attempt.flipped > 0).sum()), len(attempt.flipped))
            ),
            "stopped": attempt.stopped,
            "cost_per_image": dict(attempt.cost),
            "members_failed": dict(attempt.failures),
            "flags": {
                flag: sum(flag in flags for flags in attempt.flags) for flag in sorted(MEANING)
            },
            "measures": {
                name: {
                    "title": measure.title,
                    "chance": chance(name, *shape[1:]),
                    "worst_mean": _plain(_mean(self.worst(radius, name))),
                    "floor_mean": {
                        control: _plain(_mean(found.likeness[name]))
                        for control, found in self.floor.get(radius, {}).items()
                    },
                    **({} if measure.distance else {"curve": self._curve(radius, name)}),
                }
                for name, measure in MEASURES.items()
            },
            "floor_answers_kept": {
                control: _share(share(int(found.kept.sum()), len(found.kept)))
                for control, found in self.floor.get(radius, {}).items()
            },
            "per_image": self._per_image(radius, status),
        }

    def _curve(self, radius: float, measure: str) -> list[dict[str, float]]:
        return [{"tau": tau, **_share(self.accuracy(radius, tau, measure))} for tau in TAUS]

    def _per_image(self, radius: float, status: Sequence[str]) -> list[dict[str, Any]]:
        attempt = self.attempts[radius]
        worst = {name: self.worst(radius, name) for name in MEASURES}
        rows: list[dict[str, Any]] = []
        at = 0
        for name, word in zip(self.names, status, strict=True):
            row: dict[str, Any] = {"image": name, "status": word}
            if name in self.failed:
                row["why"] = self.failed[name]
            else:
                row["worst"] = {key: _plain(float(value[at])) for key, value in worst.items()}
                row["found_by"] = {key: who[at] for key, who in attempt.found_by.items()}
                row["judged"] = int(attempt.judged[at])
                row["flipped"] = int(attempt.flipped[at])
                row["flags"] = list(attempt.flags[at])
                at += 1
            rows.append(row)
        return rows


def _share(found: Share) -> dict[str, float]:
    return {
        "share": found.value,
        "count": found.count,
        "n": found.n,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
    }


def _mean(values: Tensor) -> float:
    """The mean of what is defined; a map that is gone counts as the lowest correlation."""
    return float(values.clamp(-1, torch.finfo(values.dtype).max).nanmean())


def _plain(value: float) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None
