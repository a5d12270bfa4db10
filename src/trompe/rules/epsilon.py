"""LRP-epsilon (Bach et al. 2015, equation 58)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.rules.affine import centred, outcome
from trompe.rules.linear import transposed, weight_of
from trompe.rules.passing import stabilised


@dataclass(frozen=True)
class Epsilon:
    """``R_i = x_i sum_j w_ij R_j / (z_j + epsilon sign z_j)``; the bias is part of z.

    Args:
        epsilon: keeps the denominator from zero, and absorbs relevance where it is large.
    """

    epsilon: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        share = relevance / stabilised(outcome(op), self.epsilon)
        return [centred(op) * transposed(op, share, weight_of(op))]
