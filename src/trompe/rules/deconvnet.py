"""Deconvnet: the gradient, every ReLU replaced by a ReLU of the backward signal alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.direct import activation_hooks, grad_fn
from trompe.engine.smoothing import cuts_the_negative
from trompe.engine.softplus import softplus
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall


def rectified(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R)``, whatever the activation was."""
    return [torch.relu(relevance)]


def rectified_clamp(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """A clamp at zero is a ReLU; any other passes its vector-Jacobian product."""
    relu = cuts_the_negative(op.argument(1, "min"), op.argument(2, "max"))
    return rectified(relevance, op) if relu else vjp(relevance, op)


def smoothly_rectified(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``softplus_b(R)``, on a smoothed model."""
    return [softplus(relevance, op.argument(1, "beta"))]


RULES: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), rectified),
    **dict.fromkeys(
        (torch.clamp, Tensor.clamp, torch.clamp_min, Tensor.clamp_min), rectified_clamp
    ),
    softplus: smoothly_rectified,
}
"""The rule of each activation; all other operations pass their vector-Jacobian product."""


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
    return RuleSet("deconvnet", RULES, default=vjp, hooks=HOOKS)
