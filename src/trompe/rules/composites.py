"""Which rule applies where: the composites of the literature, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.sweep import Rule, RuleSet
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UsageError
from trompe.rules.alpha_beta import AlphaBeta, z_plus
from trompe.rules.batch_norm import fold, fold_before
from trompe.rules.epsilon import Epsilon
from trompe.rules.flat import Flat
from trompe.rules.gamma import Gamma
from trompe.rules.general import linear_in_inputs
from trompe.rules.linear import LINEAR, mark_first
from trompe.rules.lrp import RULES, lrp_rules
from trompe.rules.norm import Addition, Norm
from trompe.rules.normalisation import BatchNorm
from trompe.rules.passing import ADDITIONS
from trompe.rules.signs import mark_nonnegative
from trompe.rules.z_box import ZBox
from trompe.types import InputSpace

_AVERAGES = (
    *(F.avg_pool1d, F.avg_pool2d, torch.mean, Tensor.mean, torch.sum, Tensor.sum),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d),
)


@dataclass(frozen=True)
class Composite:
    """A choice of rules; all that it does not name follows ``trompe.rules.lrp.RULES``.

    Batch norms are folded into a neighbouring linear operation where there is one, and take the
    epsilon rule where there is none.

    Args:
        convolution: of convolutions.
        dense: of fully connected layers.
        first_convolution: of convolutions that see the input itself, if different; ``box`` stands
            for z_B with the bounds of the input space, per channel.
        first_dense: of fully connected layers that see the input itself, if different.
        addition: of sums of activations.
        stabiliser: of sums, averages and norms.
    """

    convolution: Rule
    dense: Rule
    first_convolution: Rule | str | None = None
    first_dense: Rule | None = None
    addition: Addition = field(default_factory=Addition)
    stabiliser: float = 1e-6

    def rules(self, space: InputSpace) -> RuleSet:
        """The rules for inputs of ``space``."""
        first: Any = self.first_convolution
        if first == "box":
            first = ZBox(space.low, space.high, self.stabiliser)

        def linear(relevance: Any, op: OpCall) -> Any:
            dense = op.func is F.linear
            rule = self.dense if dense else self.convolution
            if op.notes.get("first"):
                rule = (self.first_dense if dense else first) or rule
            return rule(relevance, op)

        def prepare(tape: Tape) -> None:
            fold(tape)
            fold_before(tape)
            mark_nonnegative(tape)
            for op in mark_first(tape):
                op.notes["first"] = True

        general = linear_in_inputs(self.stabiliser, self.addition.constants)
        table: dict[Callable[..., Any], Rule] = {
            **RULES,
            **{function: rule for function, rule in general.items() if _untouched(function)},
            **dict.fromkeys(_AVERAGES, Norm(self.stabiliser)),
            **dict.fromkeys(ADDITIONS, self.addition),
            **dict.fromkeys(LINEAR, linear),
            F.batch_norm: BatchNorm(self.stabiliser),
        }
        return RuleSet("lrp", table, default=None, prepare=prepare)


_SHIPPED = dict(RULES)


def _untouched(function: Callable[..., Any]) -> bool:
    """Whether the rule of a function is the one trompe came with, not one of the user's."""
    return RULES.get(function) is _SHIPPED.get(function)


def attention(
    gamma_convolution: float = 0.0, gamma_dense: float = 0.0, epsilon: float = 1e-6
) -> Composite:
    """AttnLRP (Achtibat et al. 2024): epsilon throughout, softmax by its Taylor expansion.

    Args:
        gamma_convolution: of the patch embedding, for which the paper uses a gamma rule.
        gamma_dense: of the linear layers.
        epsilon: of the epsilon rule.
    """
    return Composite(
        convolution=Gamma(gamma_convolution, epsilon) if gamma_convolution else Epsilon(epsilon),
        dense=Gamma(gamma_dense, epsilon) if gamma_dense else Epsilon(epsilon),
        addition=Addition(constants=True, stabiliser=epsilon),
        stabiliser=epsilon,
    )


_FLAT_ALPHA_BETA = Composite(AlphaBeta(2, 1), Epsilon(), Flat(), Flat())

COMPOSITES: dict[str, Composite] = {
    "epsilon": Composite(Epsilon(), Epsilon()),
    "epsilon_plus": Composite(z_plus(), Epsilon()),
    "epsilon_plus_flat": Composite(z_plus(), Epsilon(), Flat(), Flat()),
    "epsilon_gamma_box": Composite(Gamma(), Epsilon(), "box"),
    "alpha2_beta1_flat": _FLAT_ALPHA_BETA,
    "epsilon_alpha2_beta1_flat": _FLAT_ALPHA_BETA,
    "epsilon_alpha2_beta1": Composite(AlphaBeta(2, 1), Epsilon()),
    "attn": attention(),
}
"""The composites by name, with the settings of Montavon et al. (2019) and of zennit.

``paper``, the rules of the attacked method, is made by ``trompe.rules.lrp.lrp_rules``.
"""


def composite_names() -> list[str]:
    """All names that ``composite_rules`` takes."""
    return ["paper", *COMPOSITES]


def composite_rules(composite: str | Composite, space: InputSpace) -> RuleSet:
    """The rules of a composite.

    Args:
        composite: a name, or one of your own.
        space: gives z_B its bounds. ``paper`` takes the lowest and the highest over the channels,
            as the reference implementation does; ``epsilon_gamma_box`` those of each channel.

    Raises:
        UsageError: if there is no composite of that name.
    """
    if isinstance(composite, Composite):
        return composite.rules(space)
    if composite == "paper":
        return lrp_rules(min(space.low), max(space.high))
    known: Mapping[str, Composite] = COMPOSITES
    if composite not in known:
        raise UsageError(
            f"unknown composite '{composite}': choose from {', '.join(composite_names())}"
        )
    return known[composite].rules(space)
