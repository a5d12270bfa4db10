"""Boxes and l2 balls of every value over the ball, forward, and of gradients, backward."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.prepared import Prepared
from trompe.certificates.within_reach import bound_within_reach


@certificates.register("interval")
@dataclass(frozen=True)
class Interval(ProvedBound):
    """Interval arithmetic: values, slopes, second derivatives and gradients in the ball.

    The slope of a ReLU that may change its sign is [0, 1]; of max pooling any combination of
    possible winners may occur.
    """

    name = "interval"

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``."""
        bound_within_reach(self.name, prepared, ball, into, dense=False)
