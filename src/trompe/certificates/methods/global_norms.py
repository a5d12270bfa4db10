"""Spectral norms of the layers: what holds at every input."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds
from trompe.certificates.everywhere import bound_everywhere
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.prepared import Prepared


@certificates.register("global")
@dataclass(frozen=True)
class GlobalNorms(ProvedBound):
    """Products of spectral norms from above (Singla and Feizi 2020, eq. 7).

    Exact singular values of linear layers; convolutions on a torus large enough to wrap nothing.
    """

    name = "global"

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``."""
        bound_everywhere(self.name, prepared, ball, into, lambda part: part.norm, tighten=True)
