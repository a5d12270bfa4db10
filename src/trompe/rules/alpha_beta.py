"""LRP-alpha-beta (Bach et al. 2015, equation 60) and z+ (Montavon et al. 2017), its first half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.errors import UsageError
from trompe.rules.affine import centred, plus, whole_bias
from trompe.rules.linear import apply, negative, positive, transposed, weight_of
from trompe.rules.passing import away, stabilised

Part = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AlphaBeta:
    """``R_i = sum_j (alpha (x_i w_ij)+ / sum (x w)+ - beta (x_i w_ij)- / sum (x w)-) R_j``.

    For inputs of any sign: the positive part of a contribution comes from a positive input times
    a positive weight, or from both negative. Where inputs are known not to be negative, as after
    a ReLU, the half that would be zero is not computed.

    Args:
        alpha: weight of the positive contributions.
        beta: of the negative ones; ``alpha - beta = 1``.
        stabiliser: added to denominators, with their sign.
        bias: whether the bias takes part in the denominators, and so takes relevance.

    Raises:
        UsageError: if a weight is negative or their difference is not 1.
    """

    alpha: float = 2.0
    beta: float = 1.0
    stabiliser: float = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        if min(self.alpha, self.beta) < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise UsageError(
                f"alpha and beta must not be negative and differ by 1, not {self.alpha} and "
                f"{self.beta}"
            )

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        out = self._half(relevance, op, positive, negative)
        out = out if self.alpha == 1 else self.alpha * out
        if self.beta:
            out = out - self.beta * self._half(relevance, op, negative, positive)
        return [out]

    def _half(self, relevance: Tensor, op: OpCall, same: Part, other: Part) -> Tensor:
        """Relevance by the contributions ``x+ same(w) + x- other(w)``."""
        x, weight = centred(op), weight_of(op, same)
        bias = whole_bias(op, weight_of(op)) if self.bias else None
        if op.notes.nonnegative:
            terms = [(x, weight)]
        else:
            terms = [(x.clamp(min=0), weight), (x.clamp(max=0), weight_of(op, other))]
        z = apply(op, *terms[0])
        for term in terms[1:]:
            z = z + apply(op, *term)
        z = plus(z, None if bias is None else same(bias))
        # The positive contributions add up to nothing negative.
        safe = away(z, self.stabiliser) if same is positive else stabilised(z, self.stabiliser)
        share = relevance / safe
        parts = [part * transposed(op, share, w) for part, w in terms]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def z_plus(stabiliser: float = 1e-6, bias: bool = True) -> AlphaBeta:
    """The z+ rule: alpha 1, beta 0.

    For inputs that are not negative, as after a ReLU, ``R_i = sum_j x_i w+_ij R_j / sum_i x_i
    w+_ij`` (Montavon et al. 2017, equation 14). For inputs of both signs, as after a linear
    bottleneck, the positive contributions are ``x+ w+ + x- w-``: they cannot cancel, so that no
    relevance is made from nothing.

    Args:
        stabiliser: added to denominators.
        bias: whether the bias takes part in the denominators, and so takes relevance.
    """
    return AlphaBeta(1.0, 0.0, stabiliser, bias)
