"""Products of activations: gates, matrix products, quotients (Achtibat et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.rules.affine import sum_to
from trompe.rules.norm import Norm


def gated(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """An elementwise product: equal parts for its factors (proposition 3.2); constants none."""
    part = relevance / len(op.edges)
    return [sum_to(part, alias.shape) for _, alias in op.edges]


def divided(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """A quotient: all to the numerator, as a normalisation (proposition 3.4)."""
    numerator = op.args[0] if op.args else op.kwargs.get("input")
    if len(op.edges) == 1:
        numerator = op.edges[0][1]
    return [sum_to(relevance, alias.shape) if alias is numerator else None for _, alias in op.edges]


def glu(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``a sigmoid(b)`` for the halves a and b of a tensor: equal parts."""
    half = relevance / 2
    return [torch.cat([half, half], dim=op.argument(1, "dim", -1))]


@dataclass(frozen=True)
class MatrixProduct:
    """``R_a = a_i sum_j b_ij R_j / (2 z_j)``, and so for b (proposition 3.3).

    A factor that is constant takes no relevance: then it is the epsilon rule.

    Args:
        epsilon: added to denominators, with their sign.
    """

    epsilon: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        return Norm(self.epsilon, degree=len(op.edges))(relevance, op)


def softmax(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``R_i = x_i (R_i - s_i sum_j R_j)`` (proposition 3.1); masked places (-inf) take none."""
    x, dim = op.edges[0][1], op.argument(1, "dim")
    if dim is None:  # the dimension that ``F.softmax`` then takes
        dim = 0 if x.dim() in (0, 1, 3) else 1
    seen = torch.where(torch.isneginf(x), torch.zeros_like(x), x)
    return [seen * (relevance - op.out * relevance.sum(dim, keepdim=True))]


SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
"""The functions that are a softmax."""
