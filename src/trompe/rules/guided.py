"""Guided backpropagation: the gradient, its negative part cut at every ReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.softplus import softplus
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall


def guided_relu(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``relu(R) [z > 0]``."""
    return vjp(torch.relu(relevance), op)


def guided_softplus(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """``softplus_b(R) sigmoid(b z)``, the smooth form (PAPER.md, section 2)."""
    return vjp(softplus(relevance, op.argument(1, "beta")), op)


RULES: dict[Callable[..., Any], Rule] = {
    F.relu: guided_relu,
    torch.relu: guided_relu,
    Tensor.relu: guided_relu,
    torch.clamp_min: guided_relu,
    Tensor.clamp_min: guided_relu,
    softplus: guided_softplus,
}
"""The rule of each activation; all other operations pass their vector-Jacobian product."""


def guided_rules() -> RuleSet:
    """The rules of guided backpropagation."""
    return RuleSet("guided", RULES, default=vjp)
