"""The z_B rule for inputs within a box (Montavon et al. 2017, equation 15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.rules.affine import channels, checked
from trompe.rules.linear import apply, input_of, negative, positive, transposed, weight_of
from trompe.rules.passing import stabilised
from trompe.types import constant_vector


@dataclass(frozen=True)
class ZBox:
    """``R_i = sum_j (x_i w_ij - l_i w+_ij - h_i w-_ij) R_j / sum_i (...)``.

    Args:
        low: the lowest value of each input channel; one number serves all.
        high: the highest.
        stabiliser: added to denominators, with their sign.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    stabiliser: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        checked(op)
        x = input_of(op)
        low, high = self._corner(op, self.low, min), self._corner(op, self.high, max)
        weight, up, down = (weight_of(op, part) for part in (None, positive, negative))
        z = apply(op, x, weight) - apply(op, low, up) - apply(op, high, down)
        share = relevance / stabilised(z, self.stabiliser)
        corner = low * transposed(op, share, up) + high * transposed(op, share, down)
        return [x * transposed(op, share, weight) - corner]

    @staticmethod
    def _corner(
        op: OpCall, values: tuple[float, ...], bound: Callable[[tuple[float, ...]], float]
    ) -> Tensor:
        """The bound of every input, of the shape of the input."""
        x = input_of(op)
        spatial = x.dim() > 2 and op.func is not F.linear
        if not spatial or x.shape[-int(op.func.__name__[-2]) - 1] != len(values):
            return torch.full_like(x, bound(values)).detach()
        column = constant_vector(values, x.dtype, x.device)
        return channels(column, op, x).expand_as(x)
