"""Guided backpropagation: the gradient, its negative part cut at every ReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trompe.engine.activations import ACTIVATIONS, HARDTANH, RELU
from trompe.engine.direct import activation_hooks, grad_fn, lower_bound
from trompe.engine.selections import LARGEST, POOLINGS, functions_of
from trompe.engine.softplus import gated_softplus, slope_of, softplus
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp

NO_RELU = "is no ReLU, on which alone this method is defined, and has no rule"

ONLY = frozenset({RELU.name, HARDTANH.name, LARGEST.name, *(pooling.name for pooling in POOLINGS)})
"""The operations with a kink that a method of rectified networks is defined on."""

RECTIFIERS = frozenset({RELU.name, HARDTANH.name, LARGEST.name})
"""Those of them that cut the signal: without any, these methods are the gradient."""


def guided_relu(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R) [z > 0] = R [min(R, relu(z)) > 0]``, whose mask is constant nearly everywhere."""
    lower = torch.minimum(relevance.detach(), op.out.detach())
    return [torch.ops.aten.threshold_backward(relevance, lower, 0)]


def guided_cap(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """A ReLU with a cap (ReLU6): ``relu(R) [0 < z < cap]``, with a softplus where it is smoothed.

    Raises:
        UnsupportedOp: for a hard tanh with another lower bound, which is no ReLU.
    """
    if lower_bound(op) == 0 and op.func in HARDTANH.smooth:
        return vjp(softplus(relevance, op.argument(1, "beta")), op)
    return hard_cap(relevance, op)


def hard_cap(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """The same with a hard cut of the signal, smoothed or not; the slope is the cap's own.

    Raises:
        UnsupportedOp: for a hard tanh with another lower bound, which is no ReLU.
    """
    if lower_bound(op) != 0:
        return undefined(relevance, op)
    return vjp(torch.relu(relevance), op)


def undefined(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """Refuse an activation with a kink that is no ReLU: the method is not defined there.

    Raises:
        UnsupportedOp: always.
    """
    raise UnsupportedOp(op.name, op.place or f"call {op.index}", "guided", NO_RELU)


def guided_softplus(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``softplus_b(R) sigmoid(b z)``, the smooth form."""
    return [gated_softplus(relevance, slope_of(op.out), op.argument(1, "beta"))]


def hard_softplus(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R) sigmoid(b z)``: the gate is smooth, the cut of the signal is not."""
    return [torch.relu(relevance) * slope_of(op.out)]


RULES: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys(functions_of(*ACTIVATIONS), undefined),
    **dict.fromkeys(RELU.recorded, guided_relu),
    **dict.fromkeys(functions_of(HARDTANH), guided_cap),
    softplus: guided_softplus,
}
"""The rule of each activation; all operations without a kink pass their own product."""

HARD = {
    **RULES,
    **dict.fromkeys(functions_of(HARDTANH), hard_cap),
    softplus: hard_softplus,
}
"""The same with a hard cut where the network is smoothed."""


def _cut(op: OpCall) -> None:
    """``relu(R) [z > 0] = relu(R [z > 0])``: what the ReLU sends back is cut in place."""

    def cut(shares: Any, relevance: Any) -> Any:
        return tuple(None if share is None else share.clamp_(min=0) for share in shares)

    grad_fn(op).register_hook(cut)


def _cut_smoothly(op: OpCall) -> None:
    beta = op.argument(1, "beta")
    op.out.register_hook(lambda relevance: softplus(relevance, beta))


def _cut_hard(op: OpCall) -> None:
    op.out.register_hook(torch.relu)


HOOKS = activation_hooks(_cut, _cut_smoothly)
"""The same as hooks of one backward pass, for maps without a graph."""

HARD_HOOKS = activation_hooks(_cut, _cut_hard)


def guided_rules(hard_cut: bool = False) -> RuleSet:
    """The rules of guided backpropagation.

    Args:
        hard_cut: whether a smoothed network's signal is cut as sharply as another one's, its gates
            alone being smooth.
    """
    rules, hooks = (HARD, HARD_HOOKS) if hard_cut else (RULES, HOOKS)
    return RuleSet(
        "guided",
        rules,
        default=vjp,
        hooks=hooks,
        only=ONLY,
        why=NO_RELU,
        of_logits=True,
        differs_at=RECTIFIERS,
    )
