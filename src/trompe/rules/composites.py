"""Which rule applies where: the composites of the literature, by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F

from trompe.engine.sweep import Rule, RuleSet
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UsageError
from trompe.rules.alpha_beta import AlphaBeta, z_plus
from trompe.rules.epsilon import Epsilon
from trompe.rules.exponentials import refuse_odd_softmax
from trompe.rules.flat import Flat
from trompe.rules.fold import fold, fold_before
from trompe.rules.gamma import Gamma
from trompe.rules.general import SUMS, bounded, by_contribution
from trompe.rules.input_box import mark_first, selected
from trompe.rules.linear import LINEAR
from trompe.rules.lrp import RULES, SHARED
from trompe.rules.norm import Addition
from trompe.rules.passing import STABILISER
from trompe.rules.signs import mark_nonnegative
from trompe.rules.written_norm import mark_batch_norms, mark_biases
from trompe.rules.z_box import ZBox
from trompe.types import InputSpace


@dataclass(frozen=True)
class Composite:
    """A choice of rules; what it does not name moves, selects or passes relevance on.

    Rules of your own (``trompe.rules.lrp.RULES``) come before all others. Batch norms are folded
    into a neighbouring linear operation where there is one, and so are constants that are added to
    its sums or multiply its channels. A layer is a convolution or fully connected as it is called:
    one of 1 by 1 written as a matrix product over all places takes the rule of ``dense``.

    Args:
        convolution: of convolutions.
        dense: of fully connected layers, and of matrix products.
        first_convolution: of convolutions that see the image itself, moved or rescaled at most
            (``trompe.rules.input_box``), if different.
        first_dense: of fully connected layers that see it, if different.
        addition: of sums of activations; ``None`` for that of ``sums``.
        stabiliser: of sums, averages and norms.
        sums: how sums, averages, matrix products and normalisations share out. ``contribution``:
            in proportion to each term, as the epsilon rule does, which may send on any multiple of
            what a sum of nearly nothing received. ``bounded``: to the terms of the sum's own sign,
            as z+ does, so that no more is sent on than was received.
        bounds: of the image, for z_B: those of each channel (``channel``), or the lowest and the
            highest of all channels (``shared``).
    """

    convolution: Rule
    dense: Rule
    first_convolution: Rule | None = None
    first_dense: Rule | None = None
    addition: Addition | None = None
    stabiliser: float = 1e-6
    sums: Literal["contribution", "bounded"] = "contribution"
    bounds: Literal["channel", "shared"] = "channel"

    def rules(self, space: InputSpace) -> RuleSet:
        """The rules for inputs of ``space``, which gives z_B its bounds."""

        def prepare(tape: Tape) -> None:
            refuse_odd_softmax(tape, "lrp")
            fold(tape)
            fold_before(tape)
            mark_biases(tape)
            mark_batch_norms(tape)
            mark_nonnegative(tape)
            mark_first(tape, space, self.bounds == "shared")

        try:
            table = _kept_table(self)
        except TypeError:  # a rule of the caller's own without a hash
            table = self._table()
        rules = {**table, **RULES} if RULES else table
        return RuleSet("lrp", rules, default=None, prepare=prepare, stabilised=True, of_logits=True)

    def _linear(self, relevance: Any, op: OpCall) -> Any:
        if op.notes.selects:
            return selected(relevance, op)
        dense = op.func is F.linear
        rule = self.dense if dense else self.convolution
        if op.notes.bounds is not None:
            rule = (self.first_dense if dense else self.first_convolution) or rule
        return rule(relevance, op)

    def _table(self) -> Mapping[Any, Rule]:
        return {**SHARED, **self._sums(), **dict.fromkeys(LINEAR, self._linear)}

    def _sums(self) -> Mapping[Any, Rule]:
        if self.sums == "contribution":
            return by_contribution(self.stabiliser, self.addition)
        table = bounded(self.stabiliser)
        return table if self.addition is None else {**table, **dict.fromkeys(SUMS, self.addition)}


@functools.lru_cache(maxsize=32)
def _kept_table(composite: Composite) -> Mapping[Any, Rule]:
    """The rules that depend on nothing but the composite: hundreds, wanted for every map."""
    return composite._table()


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


_Z_PLUS = z_plus(STABILISER, bias=False)
_Z_BOX = ZBox(STABILISER)
_FLAT_ALPHA_BETA = Composite(AlphaBeta(2, 1), Epsilon(), Flat(), Flat())

COMPOSITES: dict[str, Composite] = {
    "paper": Composite(
        convolution=_Z_PLUS,
        dense=_Z_PLUS,
        first_convolution=_Z_BOX,
        first_dense=_Z_BOX,
        stabiliser=STABILISER,
        sums="bounded",
        bounds="shared",
    ),
    "epsilon": Composite(Epsilon(), Epsilon()),
    "epsilon_plus": Composite(z_plus(), Epsilon()),
    "epsilon_plus_flat": Composite(z_plus(), Epsilon(), Flat(), Flat()),
    "epsilon_gamma_box": Composite(Gamma(), Epsilon(), ZBox()),
    "alpha2_beta1_flat": _FLAT_ALPHA_BETA,
    "epsilon_alpha2_beta1_flat": _FLAT_ALPHA_BETA,
    "epsilon_alpha2_beta1": Composite(AlphaBeta(2, 1), Epsilon()),
    "attn": attention(),
}
"""The composites by name, with the settings of Montavon et al. (2019) and of zennit.

``paper`` are the rules of the attacked method: z+ without biases, and z_B in the first layer, with
the lowest and the highest value over the channels, as in the reference implementation.
"""


def composite_names() -> list[str]:
    """All names that ``composite_rules`` takes."""
    return list(COMPOSITES)


def composite_rules(composite: str | Composite, space: InputSpace) -> RuleSet:
    """The rules of a composite.

    Args:
        composite: a name, or one of your own.
        space: gives z_B its bounds.

    Raises:
        UsageError: if there is no composite of that name.
    """
    if isinstance(composite, Composite):
        return composite.rules(space)
    if composite not in COMPOSITES:
        raise UsageError(
            f"unknown composite '{composite}': choose from {', '.join(composite_names())}"
        )
    return COMPOSITES[composite].rules(space)
