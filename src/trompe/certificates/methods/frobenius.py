"""The bound of Dombrowski et al. 2019: Frobenius norms of the layers."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds
from trompe.certificates.everywhere import bound_everywhere
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.prepared import Prepared


@certificates.register("frobenius")
@dataclass(frozen=True)
class Frobenius(ProvedBound):
    """``b C`` of Theorem 1: Frobenius norms of the layers, second derivatives at most b / 4."""

    name = "frobenius"
    joins_best = False  # spectral norms are never larger

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``."""
        bound_everywhere(
            self.name, prepared, ball, into, lambda part: part.frobenius, tighten=False
        )
