"""The smallest of all proved bounds, quantity by quantity."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.prepared import Prepared


@certificates.register("best")
@dataclass(frozen=True)
class Best(ProvedBound):
    """Every registered proof that takes no more than seconds; each quantity by the best of them."""

    name = "best"
    joins_best = False

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``."""
        for name in certificates:
            kind = certificates[name]
            if issubclass(kind, ProvedBound) and kind.joins_best:
                part = kind()
                if part.affordable(prepared):
                    part.bound(prepared, ball, into)
