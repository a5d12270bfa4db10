"""Deconvnet: the gradient, every ReLU replaced by a ReLU of the backward signal alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trompe.engine.activations import ACTIVATIONS, HARDTANH, RELU
from trompe.engine.direct import activation_hooks, grad_fn, lower_bound
from trompe.engine.selections import functions_of
from trompe.engine.softplus import softplus
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp
from trompe.rules.guided import NO_RELU, ONLY, RECTIFIERS


def rectified(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R)``, whatever the activation was."""
    return [torch.relu(relevance)]


def rectified_cap(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """The same at a ReLU with a cap (ReLU6).

    Raises:
        UnsupportedOp: for a hard tanh with another lower bound, which is no ReLU.
    """
    if lower_bound(op) != 0:
        return undefined(relevance, op)
    if op.func in HARDTANH.smooth:
        return smoothly_rectified(relevance, op)
    return rectified(relevance, op)


def undefined(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """Refuse an activation with a kink that is no ReLU: the method is not defined there.

    Raises:
        UnsupportedOp: always.
    """
    raise UnsupportedOp(op.name, op.place or f"call {op.index}", "deconvnet", NO_RELU)


def smoothly_rectified(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``softplus_b(R)``, on a smoothed model."""
    return [softplus(relevance, op.argument(1, "beta"))]


RULES: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys(functions_of(*ACTIVATIONS), undefined),
    **dict.fromkeys(RELU.recorded, rectified),
    **dict.fromkeys(functions_of(HARDTANH), rectified_cap),
    softplus: smoothly_rectified,
}
"""The rule of each activation; all operations without a kink pass their own product."""


def _replace(op: OpCall, rectify: Callable[[Tensor], Tensor]) -> None:
    """Send the rectified signal back in place of what the activation would send."""

    def replace(shares: Any, relevance: Any) -> Any:
        return (None if relevance[0] is None else rectify(relevance[0]), *shares[1:])

    grad_fn(op).register_hook(replace)


def _rectify(op: OpCall) -> None:
    _replace(op, torch.relu)


def _rectify_smoothly(op: OpCall) -> None:
    beta = op.argument(1, "beta")
    _replace(op, lambda relevance: softplus(relevance, beta))


HOOKS = activation_hooks(_rectify, _rectify_smoothly)
"""The same as hooks of one backward pass, for maps without a graph."""


def deconvnet_rules() -> RuleSet:
    """The rules of the deconvnet."""
    return RuleSet(
        "deconvnet",
        RULES,
        default=vjp,
        hooks=HOOKS,
        only=ONLY,
        why=NO_RELU,
        of_logits=True,
        differs_at=RECTIFIERS,
    )
