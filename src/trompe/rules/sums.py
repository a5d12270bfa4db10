"""Sums whose terms may have both signs, so shared out that nothing is made from nothing.

In proportion to their contributions, the terms 1 and -0.99 of a sum of 0.01 would take 100 and -99
times its relevance. Here the terms of the sum's own sign share it: what z+ does in a linear layer,
whose neurons are active where the sum is positive, and its mirror image where it is negative. The
shares add up to the relevance, and none has another sign. Where no term has another sign, as after
a ReLU, this is the share by contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import ADDITIONS
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.sweep import Rule, vjp
from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp
from trompe.rules.affine import sum_to
from trompe.rules.passing import ADAPTIVE, away, passed, stabilised

INTERPOLATION = (F.interpolate, F.upsample)
"""Resampling on a grid."""


def again(op: OpCall, values: dict[int, Tensor]) -> Tensor:
    """The output of an operation with other tensors in place of those of the given ids."""
    args, kwargs = swapped((op.args, op.kwargs), lambda t: values.get(id(t), t))
    out: Tensor = op.func(*args, **kwargs)
    return out


@dataclass(frozen=True)
class SignedAddition:
    """A sum of two activations; a constant takes nothing.

    Args:
        stabiliser: Added to denominators.
    """

    stabiliser: float = 1e-9

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        if len(op.edges) == 1:
            return passed(relevance, op)
        alpha = op.argument(2, "alpha", 1)
        plain = op.func in ADDITIONS and alpha == 1
        terms = [alias for _, alias in op.edges] if plain else self._terms(op)
        total = op.out
        if not (plain and op.notes.nonnegative):
            # Its sign is constant nearly everywhere, so that it needs no derivative.
            sign = torch.where(op.out.detach() >= 0, 1.0, -1.0).to(op.out.dtype)
            terms = [torch.relu(term * sign) for term in terms]
            total = terms[0] + terms[1]
        share = relevance / away(total, self.stabiliser)
        return [
            sum_to(term * share, alias.shape)
            for term, (_, alias) in zip(terms, op.edges, strict=True)
        ]

    @staticmethod
    def _terms(op: OpCall) -> list[Tensor]:
        """The activations times what the sum multiplies them by, such as -1 or ``alpha``."""
        aliases = [alias for _, alias in op.edges]
        factors = vjp(torch.ones_like(op.out), op)
        copies = [op.out.numel() / alias.numel() for alias in aliases]
        return [
            alias * (factor / count)
            for alias, factor, count in zip(aliases, factors, copies, strict=True)
            if factor is not None
        ]


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The positive part, and the magnitude of the negative part."""
    return tensor.clamp(min=0), (-tensor).clamp(min=0)


@dataclass(frozen=True)
class SignedSum:
    """What is linear in its input, with weights that are not negative: averages, resampling.

    Args:
        stabiliser: Added to denominators.

    Raises:
        UnsupportedOp: When called, for an interpolation with weights of both signs.
    """

    stabiliser: float = 1e-9

    def __call__(self, relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        x = op.edges[0][1]
        none: list[Tensor | None] = [None] * (len(op.edges) - 1)  # a sampling grid
        if op.func in INTERPOLATION and op.argument(3, "mode") == "bicubic":
            place = op.place or f"call {op.index}"
            reason = "has weights of both signs: interpolate bilinearly, or take another composite"
            raise UnsupportedOp(op.name, place, "lrp", reason)
        if op.out.shape == x.shape and op.func in ADAPTIVE:
            return [relevance, *none]  # each window is one place
        if op.notes.nonnegative:
            share = vjp(relevance / away(op.out, self.stabiliser), op)[0]
            return [None if share is None else x * share, *none]
        above, below = _halves(x)
        sums = again(op, {id(x): above})
        up = op.out.detach() >= 0
        share = relevance / away(torch.where(up, sums, sums - op.out), self.stabiliser)
        (of_above, *_), (of_below, *_) = (
            vjp(torch.where(side, share, 0.0), op) for side in (up, ~up)
        )
        assert of_above is not None  # of the first edge, which the output depends on
        assert of_below is not None
        return [above * of_above + below * of_below, *none]


@dataclass(frozen=True)
class Resampling:
    """An interpolation: to the nearest place it moves values, otherwise it is a sum.

    Args:
        total: The rule of the sum.
    """

    total: Rule

    def __call__(self, relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        moves = str(op.argument(3, "mode", "nearest")).startswith("nearest")
        return vjp(relevance, op) if moves else self.total(relevance, op)


@dataclass(frozen=True)
class SignedProduct:
    """A matrix product.

    With a constant factor it is a linear layer in another spelling, and z+ applies: positive
    contributions only. Two activations take half each of what the terms of each sum share, as in
    Achtibat et al. (2024, proposition 3.3).

    Args:
        stabiliser: Added to denominators.
    """

    stabiliser: float = 1e-9

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        factors = [t for t in tensors_in(op.args, op.kwargs) if t.is_floating_point()]
        if len(factors) == 1:
            return SignedSum(self.stabiliser)(relevance, op)
        if len(factors) > 2:
            place = op.place or f"call {op.index}"
            reason = "multiplies three tensors at once: multiply two at a time"
            raise UnsupportedOp(op.name, place, "lrp", reason)
        carry = torch.is_grad_enabled()
        with torch.enable_grad():  # a graph of its own, also where the map is to carry none
            parts = {id(t): _halves(t) for t in factors}
            one = {key: above for key, (above, _) in parts.items()}
            other = {key: below for key, (_, below) in parts.items()}
            signs = self._sums(op, one, other)
        total, share = signs[0], relevance / away(signs[0], self.stabiliser)
        shares = [share]
        if len(signs) > 1:
            up = op.out.detach() >= 0
            total = torch.where(up, signs[0], signs[1])
            share = relevance / away(total, self.stabiliser)
            shares = [torch.where(up, share, 0.0), torch.where(up, 0.0, share)]
        leaves = [half for _, alias in op.edges for half in parts[id(alias)]]
        found = torch.autograd.grad(signs, leaves, shares, create_graph=carry, allow_unused=True)
        products = [
            leaf.new_zeros(leaf.shape) if grad is None else leaf * grad
            for leaf, grad in zip(leaves, found, strict=True)
        ]
        degree = len(op.edges)
        return [
            (above + below) / degree
            for above, below in zip(products[::2], products[1::2], strict=True)
        ]

    @staticmethod
    def _sums(op: OpCall, one: dict[int, Tensor], other: dict[int, Tensor]) -> list[Tensor]:
        """The positive contributions of each sum, and of two activations the negative ones."""
        positive = again(op, one) + again(op, other)
        if len(op.edges) == 1:
            return [positive]
        first = id(op.edges[0][1])
        crossed = (
            {key: (one if (key == first) == flag else other)[key] for key in one}
            for flag in (True, False)
        )
        negative = [again(op, values) for values in crossed]
        return [positive, negative[0] + negative[1]]


@dataclass(frozen=True)
class Spread:
    """A standard deviation or variance: each place takes its share of the squared distances.

    Args:
        stabiliser: Added to denominators.
        degree: Of homogeneity: 1 of a standard deviation, 2 of a variance.
    """

    stabiliser: float = 1e-9
    degree: int = 1

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        x, dims = op.edges[0][1], op.argument(1, "dim")
        whole = dims is None or isinstance(dims, bool)  # else ``torch.var(x, unbiased)``
        mean = x.mean() if whole else x.mean(dim=dims, keepdim=True)
        share = vjp(relevance / stabilised(op.out, self.stabiliser) / self.degree, op)[0]
        return [None if share is None else (x - mean) * share]
