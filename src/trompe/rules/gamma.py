"""LRP-gamma (Montavon et al. 2019), generalised to inputs and sums of any sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.rules.affine import centred, named, outcome, plus, whole_bias
from trompe.rules.linear import apply, transposed, weight_of
from trompe.rules.passing import stabilised


@dataclass(frozen=True)
class Gamma:
    """Contributions of the sign of the sum count ``1 + gamma`` times.

    For positive inputs and sums: ``R_i = x_i sum_j (w + gamma w+)_ij R_j / sum_i (...)``. Negative
    inputs swap the signs of the weights, negative sums favour the negative contributions (Andeol
    et al. 2021).

    Args:
        gamma: 0 gives the epsilon rule, infinity z+.
        stabiliser: added to denominators, with their sign.
    """

    gamma: float = 0.25
    stabiliser: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        gamma = self.gamma
        raised = named(f"raised {gamma}", lambda w: w + gamma * w.clamp(min=0))
        lowered = named(f"lowered {gamma}", lambda w: w + gamma * w.clamp(max=0))
        x, z = centred(op), outcome(op)
        up, down = weight_of(op, raised), weight_of(op, lowered)
        bias = whole_bias(op, weight_of(op))
        above, below = x, None
        if not op.notes.nonnegative:
            above, below = x.clamp(min=0), x.clamp(max=0)
        total: Tensor | None = None
        for side, same, other, part in ((z > 0, up, down, raised), (z < 0, down, up, lowered)):
            sums = apply(op, above, same)
            if below is not None:
                sums = sums + apply(op, below, other)
            sums = plus(sums, None if bias is None else part(bias))
            share = torch.where(side, relevance, 0.0) / stabilised(sums, self.stabiliser)
            out = above * transposed(op, share, same)
            if below is not None:
                out = out + below * transposed(op, share, other)
            total = out if total is None else total + out
        return [total]
