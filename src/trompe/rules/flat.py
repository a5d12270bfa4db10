"""Rules for the first layer that do not look at the input: flat and w-square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.rules.affine import channels, checked, named, plus, whole_bias
from trompe.rules.linear import apply, input_of, transposed, weight_of
from trompe.rules.passing import stabilised

_ones = named("ones", torch.ones_like)
_squares = named("squares", torch.square)


@dataclass(frozen=True)
class Flat:
    """Every input of a neuron takes the same share (Lapuschkin et al. 2019).

    Args:
        stabiliser: added to denominators.
    """

    stabiliser: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        checked(op)
        weight = weight_of(op, _ones)
        count = apply(op, torch.ones_like(input_of(op)).detach(), weight)
        return [transposed(op, relevance / stabilised(count, self.stabiliser), weight)]


@dataclass(frozen=True)
class WSquare:
    """``R_i = sum_j w_ij^2 R_j / sum_i w_ij^2`` (Montavon et al. 2017, equation 12).

    Args:
        stabiliser: added to denominators.
        bias: whether the bias, squared, takes its share.
    """

    stabiliser: float = 1e-6
    bias: bool = True

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        checked(op)
        weight = weight_of(op, _squares)
        bias = whole_bias(op, weight_of(op)) if self.bias else None
        gain: Tensor | float = 1.0
        if op.notes.gain is not None:  # of a batch norm folded in from before
            gain = channels(op.notes.gain, op, input_of(op)).square()
        z = apply(op, gain * torch.ones_like(input_of(op)).detach(), weight)
        z = plus(z, None if bias is None else bias.square())
        return [gain * transposed(op, relevance / stabilised(z, self.stabiliser), weight)]
