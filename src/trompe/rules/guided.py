"""Guided backpropagation: the gradient, its negative part cut at every ReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.direct import activation_hooks, grad_fn
from trompe.engine.smoothing import cuts_the_negative
from trompe.engine.softplus import gated_softplus, slope_of, softplus
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall


def guided_relu(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R) [z > 0] = R [min(R, relu(z)) > 0]``, whose mask is constant nearly everywhere."""
    lower = torch.minimum(relevance.detach(), op.out.detach())
    return [torch.ops.aten.threshold_backward(relevance, lower, 0)]


def guided_clamp(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """A clamp at zero is a ReLU; any other passes its vector-Jacobian product."""
    relu = cuts_the_negative(op.argument(1, "min"), op.argument(2, "max"))
    return vjp(torch.relu(relevance) if relu else relevance, op)


def guided_softplus(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``softplus_b(R) sigmoid(b z)``, the smooth form (PAPER.md, section 2)."""
    return [gated_softplus(relevance, slope_of(op.out), op.argument(1, "beta"))]


RULES: dict[Callable[..., Any], Rule] = {
    F.relu: guided_relu,
    torch.relu: guided_relu,
    Tensor.relu: guided_relu,
    torch.clamp: guided_clamp,
    Tensor.clamp: guided_clamp,
    torch.clamp_min: guided_clamp,
    Tensor.clamp_min: guided_clamp,
    softplus: guided_softplus,
}
"""The rule of each activation; all other operations pass their vector-Jacobian product."""


def _cut(op: OpCall) -> None:
    """``relu(R) [z > 0] = relu(R [z > 0])``: what the ReLU sends back is cut in place."""

    def cut(shares: Any, relevance: Any) -> Any:
        return tuple(None if share is None else share.clamp_(min=0) for share in shares)

    grad_fn(op).register_hook(cut)


def _cut_smoothly(op: OpCall) -> None:
    beta = op.argument(1, "beta")
    op.out.register_hook(lambda relevance: softplus(relevance, beta))


HOOKS = activation_hooks(_cut, _cut_smoothly)
"""The same as hooks of one backward pass, for maps without a graph."""


def guided_rules() -> RuleSet:
    """The rules of guided backpropagation."""
    return RuleSet("guided", RULES, default=vjp, hooks=HOOKS)
