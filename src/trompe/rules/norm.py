"""Sums, averages and other functions that are linear in what they share out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from trompe.engine.sweep import vjp
from trompe.engine.tape import OpCall
from trompe.rules.affine import sum_to
from trompe.rules.passing import passed, stabilised


@dataclass(frozen=True)
class Norm:
    """``R_i = x_i (df/dx_i) R / f``: each input takes the share that it contributed.

    Exact for functions homogeneous of degree 1: sums, averages, norms, interpolation.

    Args:
        stabiliser: added to denominators, with their sign.
        degree: of homogeneity; 2 for a product of two inputs or a variance, so that the shares
            still add up.
    """

    stabiliser: float = 1e-6
    degree: int = 1

    def __call__(self, relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        shares = vjp(relevance / stabilised(op.out, self.stabiliser) / self.degree, op)
        return [
            None if share is None else alias * share
            for (_, alias), share in zip(op.edges, shares, strict=True)
        ]


@dataclass(frozen=True)
class Addition:
    """A sum of activations, or of an activation and a constant.

    Args:
        share: by contribution (``proportional``), or the same for all (``equal``).
        constants: whether a constant takes the share it contributed, as a bias does.
        stabiliser: added to denominators, with their sign.
    """

    share: Literal["proportional", "equal"] = "proportional"
    constants: bool = False
    stabiliser: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        if op.notes.folded:
            return passed(relevance, op)
        if op.notes.normalised is not None:
            out, shift = op.notes.normalised
            return [(out - shift) * relevance / stabilised(out, self.stabiliser)]
        biased = op.notes.biased and self.share == "proportional"
        if len(op.edges) == 1 and not self.constants and not biased:
            return passed(relevance, op)
        if self.share == "equal":
            part = relevance / max(2 if self.constants else 1, len(op.edges))
            return [sum_to(part, alias.shape) for _, alias in op.edges]
        return Norm(self.stabiliser)(relevance, op)
