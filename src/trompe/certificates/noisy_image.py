"""One image of a certificate from noise: its copies drawn, counted, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trompe.certificates.noise_bounds import InBall, NoiseBounds
from trompe.certificates.noise_checkpoint import Checkpoint
from trompe.certificates.noise_statistics import Counted, Pilot
from trompe.certificates.noisy_maps import Noise
from trompe.errors import UsageError
from trompe.types import Progress

SQUARES = 4096
"""The covariance of so many squares is held at most."""
_SAVE_EVERY = 10
"""Batches between two checkpoints."""


@dataclass(frozen=True)
class Plan:
    """How many copies are drawn, and what is asked of them.

    Args:
        looks: After how many copies the bounds are taken, rising.
        pilot: How many of them choose what the others measure.
        reach: The radii, over sigma.
        confidence: That all statements hold, at all looks together.
        wanted: Where the correlation is at least this at every radius no more copies are drawn.
        top: Share of the squares that count as the largest.
    """

    looks: tuple[int, ...]
    pilot: int
    reach: tuple[float, ...]
    confidence: float
    wanted: float
    top: float


@dataclass(frozen=True)
class Bounded:
    """What is known of one image.

    Args:
        counted: The sums over its copies.
        shape: Of a map over squares.
        balls: What holds within each radius.
        label_radius: The largest radius, over sigma, for which the label surely stays.
        pcc_to_plain: Correlation of the smoothed standardised map with the plain one.
    """

    counted: Counted
    shape: Sequence[int]
    balls: tuple[InBall, ...]
    label_radius: float
    pcc_to_plain: float


class Drawn:
    """Counts how many copies were drawn of all images, for whoever watches.

    Args:
        report: Called with (done, total) after every batch.
        total: Copies of all images.
    """

    def __init__(self, report: Progress | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def add(self, copies: int) -> None:
        """So many more."""
        self.done += copies
        if self.report is not None:
            self.report(self.done, self.total, {})


def check_squares(size: int, pool: int) -> None:
    """Refuse maps of so many squares that there is no correlation, or no room for the covariance.

    Raises:
        UsageError: saying what to do about it.
    """
    if size < 2:
        raise UsageError(
            f"the map has one square of {pool} pixels, so no correlation: give a smaller pool"
        )
    if size > SQUARES:
        raise UsageError(
            f"the map has {size} squares, at most {SQUARES} are possible: give a larger pool"
        )


def bounded(noise: Noise, plan: Plan, drawn: Drawn, checkpoint: Checkpoint | None) -> Bounded:
    """Draw the copies of one image, count them, and take the bounds.

    Args:
        noise: Draws and explains the copies.
        plan: How many, and for what.
        drawn: Is told of every batch.
        checkpoint: Where the sums are kept from time to time, and taken up again.

    Raises:
        UsageError: If the map has one square only, or too many.
    """
    begun = drawn.done
    plain, shape = noise.plain()
    size = plain.shares.shape[1]
    check_squares(size, noise.pool)
    counted = None if checkpoint is None else checkpoint.load(noise.generator)
    if counted is None:
        first = []
        for batch in noise.batches(plan.pilot):
            first.append(batch)
            drawn.add(len(batch.classes))
        chosen = Pilot.of(first, max(1, round(plan.top * size)))
        counted = Counted(chosen, int(noise.target))
    else:
        drawn.add(plan.pilot + counted.samples)
    confidence = 1 - (1 - plan.confidence) / len(plan.looks)
    for look in plan.looks:
        left = look - plan.pilot - counted.samples
        for index, batch in enumerate(noise.batches(left)):
            counted.add(batch)
            drawn.add(len(batch.classes))
            if checkpoint is not None and index % _SAVE_EVERY == _SAVE_EVERY - 1:
                checkpoint.save(counted, noise.generator)
        if checkpoint is not None and left > 0:
            checkpoint.save(counted, noise.generator)
        if counted.samples > look - plan.pilot:  # taken up again: this look was taken before
            continue
        bounds = NoiseBounds(counted, confidence, len(plan.reach))
        balls = tuple(bounds.within(r) for r in plan.reach)
        if all(part.pcc >= plan.wanted for part in balls):
            break
    drawn.add(begun + plan.looks[-1] - drawn.done)
    mean = torch.nn.functional.normalize(counted.total, dim=0)
    return Bounded(counted, shape, balls, bounds.label_radius, float(plain.standardised[0] @ mean))
