"""Exact Jacobians of all nodes and the exact Hessian, with bounds of how far they move."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds
from trompe.certificates.forward import dense_is_small
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.prepared import Prepared
from trompe.certificates.within_reach import bound_within_reach
from trompe.errors import CertificateError


@certificates.register("jacobian")
@dataclass(frozen=True)
class Jacobian(ProvedBound):
    """The mean value form: exact Jacobians at x, entry by entry; for small networks."""

    name = "jacobian"

    def affordable(self, prepared: Prepared) -> bool:
        """See ``ProvedBound``: where the Jacobians of all nodes can be held."""
        return dense_is_small(prepared.network, prepared.values)

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``.

        Raises:
            CertificateError: If the network is too large.
        """
        if not self.affordable(prepared):
            raise CertificateError(
                "method 'jacobian' holds the Jacobian of every layer, too much here: use "
                "'telescope'"
            )
        bound_within_reach(self.name, prepared, ball, into, dense=True)
