"""Layer-wise relevance propagation: the paper's z+ rule, and z_B at the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.sweep import Rule, RuleSet
from trompe.engine.tape import OpCall, Tape
from trompe.rules.affine import checked
from trompe.rules.alpha_beta import z_plus as signed_z_plus
from trompe.rules.batch_norm import fold
from trompe.rules.general import ELEMENTWISE, MOVING, PRODUCTS, linear_in_inputs
from trompe.rules.linear import (
    LINEAR,
    apply,
    input_of,
    mark_first,
    memo,
    positive,
    transposed,
    transposed_pair,
    weight_of,
)
from trompe.rules.passing import (
    ACTIVATIONS,
    ADDITIONS,
    POOLINGS,
    STABILISER,
    STRUCTURE,
    identity,
)
from trompe.rules.signs import mark_signed


def z_plus(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``R_i = sum_j x_i w+_ij R_j / sum_i x_i w+_ij`` (PAPER.md, section 2).

    For inputs that are not negative, as after a ReLU. Biases take no relevance.
    """
    x, weight = input_of(op), weight_of(op, positive)
    z = apply(op, x, weight) + STABILISER
    return [x * transposed(op, relevance / z, weight)]


def z_b(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """The rule of the first layer, for inputs within the bounds low..high.

    ``R_i = sum_j (x_i w_ij - l w+_ij - h w-_ij) R_j / sum_i (...)`` (PAPER.md, section 2), with
    the bounds noted in ``op.notes["bounds"]``.
    """
    low, high = op.notes["bounds"]
    x, weight = input_of(op), weight_of(op)

    def corner(original: Tensor) -> Tensor:
        return low * original.clamp(min=0) + high * original.clamp(max=0)

    bound_weight = memo(weight, f"corner {low} {high}", corner)

    def offset(_: Tensor) -> Tensor:
        # What the lowest input of each sum gives: the same for all images, and for all steps.
        return apply(op, torch.ones_like(x[:1]).detach(), bound_weight)

    key = f"offset {tuple(x.shape[1:])} {op.args[3:]} {op.kwargs}"
    z = apply(op, x, weight) - memo(bound_weight, key, offset) + STABILISER
    of_x, of_bound = transposed_pair(op, relevance / z, weight, bound_weight)
    return [x * of_x - of_bound]


_SIGNED = signed_z_plus(STABILISER, bias=False)


def linear(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """z_B where the operation sees the input itself, z+ everywhere else."""
    checked(op)
    if "bounds" in op.notes:
        return z_b(relevance, op)
    return _SIGNED(relevance, op) if "signed" in op.notes else z_plus(relevance, op)


RECTIFIED: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys(LINEAR, linear),
    F.batch_norm: identity,
    **ACTIVATIONS,
    **STRUCTURE,
    **POOLINGS,
    **ADDITIONS,
}
"""The rules of rectified networks, whose z+ is the paper's as it stands."""

RULES: dict[Callable[..., Any], Rule] = {
    **linear_in_inputs(),
    **PRODUCTS,
    **MOVING,
    **ELEMENTWISE,
    **RECTIFIED,
}
"""The rule of each operation; add yours: ``RULES[function] = rule``."""


def lrp_rules(low: float, high: float) -> RuleSet:
    """The paper's LRP.

    In networks with other than rectified activations (GELU, gates, attention), where inputs of a
    layer may be negative, z+ goes by the sign of each contribution instead of that of the weight.

    Args:
        low: the lowest value of the normalised input, one number for all channels.
        high: the highest.
    """

    def prepare(tape: Tape) -> None:
        fold(tape)
        if any(op.func not in RECTIFIED for op in tape.calls):
            mark_signed(tape)  # activations may be negative: z+ by the sign of contributions
        for op in mark_first(tape):
            op.notes["bounds"] = (low, high)

    return RuleSet("lrp", RULES, default=None, prepare=prepare)
