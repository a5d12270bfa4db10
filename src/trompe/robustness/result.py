"""What the ensemble found, and the verdict that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.robustness.doubts import MEANING
from trompe.robustness.likeness import MEASURES
from trompe.robustness.shares import Share, share


@dataclass(frozen=True, repr=False)
class RobustnessResult:
    """The worst case of each image and each measure, judged on the original network.

    Tensors are on the CPU, B images. Every number belongs to an image within the radius whose
    answer the network keeps; where nothing worse than the original image was found, it is that of
    the original image.

    Args:
        x: the original images, normalised, [B, C, H, W].
        target: the classes explained, [B].
        maps: heat maps of the original images, [B, H, W].
        worst: by measure the worst value found, [B]; of a map that an attack destroyed (all zero,
            not finite) it is infinite.
        images: by measure the image that has it, [B, C, H, W].
        found_by: by measure the member that found it; ``none`` where nothing worse was found.
        by_member: by member and measure the worst value that it found itself, [B].
        judged: iterates within the radius with the answer kept, [B].
        flipped: iterates within the radius whose answer changed, [B]: they say nothing about
            explanations, and count for nothing.
        flags: reasons not to trust an image's numbers, one list per image.
        failures: members that could not run, with the reason.
        radius: of the ball, pixel units 0..1.
        norm: of the ball.
        cost: what it took per image: forward passes, maps judged, derivatives, queries.
        stopped: ``finished`` or ``interrupted``.
        provenance: settings and versions, JSON-serialisable.
    """

    x: Tensor
    target: Tensor
    maps: Tensor
    worst: Mapping[str, Tensor]
    images: Mapping[str, Tensor]
    found_by: Mapping[str, Sequence[str]]
    by_member: Mapping[str, Mapping[str, Tensor]]
    judged: Tensor
    flipped: Tensor
    flags: Sequence[Sequence[str]]
    failures: Mapping[str, str]
    radius: float
    norm: str
    cost: Mapping[str, float]
    stopped: str
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        """What it is and what was found, in three lines."""
        count = len(self.x)
        worst = self.worst["pcc"]
        return (
            f"RobustnessResult: {count} image{'s' * (count != 1)}, {self.norm} radius "
            f"{self.radius:.4f}, {self.stopped}\n"
            f"  correlation at 0.5 or above in every attempt: {self.accuracy()}; worst "
            f"{float(worst.min()):.3f}\n"
            "  more: .summary(), .accuracy(tau, measure), .worst, .found_by, .flags"
        )

    def summary(self) -> str:
        """The share of images that withstood, the worst likeness by measure, and what to doubt."""
        untried = int((~self.tried).sum())
        lines = [
            f"robust-explanation accuracy (correlation at 0.5 or above in every attempt within "
            f"{self.norm} {self.radius:.4f}, answer kept): {self.accuracy()}"
        ]
        for name, values in self.worst.items():
            found = sum(who != "none" for who in self.found_by[name])
            lines.append(
                f"{name}: {float(values.mean()):.3f} on average, "
                f"{float(values.max() if MEASURES[name].distance else values.min()):.3f} for the "
                f"worst image; worse than without an attack on {found} of {len(values)}"
            )
        if untried:
            lines.append(f"nothing is known of {untried} images: every attempt lost their answer")
        counts = Counter(flag for flags in self.flags for flag in flags)
        lines += [f"{flag} ({n} of {len(self.x)}): {MEANING[flag]}" for flag, n in counts.items()]
        lines += [f"not run: {name}: {why}" for name, why in self.failures.items()]
        return "\n".join(lines)

    @property
    def tried(self) -> Tensor:
        """Whether any iterate of an image could be judged, bool [B]; else nothing is known of it.

        An image of which every iterate lost the network's answer was not shown to be robust.
        """
        return self.judged > 0

    def robust(self, tau: float = 0.5, measure: str = "pcc") -> Tensor:
        """Whether every map that was found stays at or above ``tau``, bool [B].

        Args:
            tau: least likeness; of ``centre`` the largest distance, in pixels.
            measure: a key of ``worst``.

        Returns:
            False for images of which nothing is known.

        Raises:
            UsageError: if there is no such measure.
        """
        if measure not in MEASURES:
            raise UsageError(f"unknown measure '{measure}': choose from {', '.join(MEASURES)}")
        value = self.worst[measure]
        if MEASURES[measure].distance:
            return self.tried & (value <= tau)
        return self.tried & (value >= tau)

    def accuracy(self, tau: float = 0.5, measure: str = "pcc", failed: int = 0) -> Share:
        """Robust-explanation accuracy: the share of ALL images that are robust, and its interval.

        Args:
            tau: see ``robust``.
            measure: see ``robust``.
            failed: images that were drawn too and could not be read or explained.
        """
        return share(int(self.robust(tau, measure).sum()), len(self.x) + failed)


def joined(parts: Sequence[RobustnessResult]) -> RobustnessResult:
    """Several batches as one; costs are per image."""
    first = parts[0]
    counts = [len(part.x) for part in parts]

    def one(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors))

    members = list(dict.fromkeys(name for part in parts for name in part.by_member))
    return RobustnessResult(
        x=one([part.x for part in parts]),
        target=one([part.target for part in parts]),
        maps=one([part.maps for part in parts]),
        worst={name: one([part.worst[name] for part in parts]) for name in first.worst},
        images={name: one([part.images[name] for part in parts]) for name in first.images},
        found_by={
            name: [who for part in parts for who in part.found_by[name]] for name in first.found_by
        },
        by_member={
            member: {
                name: one([_found(part, member, name) for part in parts]) for name in first.worst
            }
            for member in members
        },
        judged=one([part.judged for part in parts]),
        flipped=one([part.flipped for part in parts]),
        flags=[flags for part in parts for flags in part.flags],
        failures={key: why for part in parts for key, why in part.failures.items()},
        radius=first.radius,
        norm=first.norm,
        cost={
            name: sum(part.cost[name] * n for part, n in zip(parts, counts, strict=True))
            / sum(counts)
            for name in first.cost
        },
        stopped=next((part.stopped for part in parts if part.stopped != "finished"), "finished"),
        provenance=first.provenance,
    )


def _found(part: RobustnessResult, member: str, name: str) -> Tensor:
    """A member that did not run on a batch has found nothing there."""
    if member in part.by_member:
        return part.by_member[member][name]
    return torch.full_like(part.worst[name], MEASURES[name].alike)
