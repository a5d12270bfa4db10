"""Rules of the operations beyond those of a plain rectified network.

Elementwise functions of one input pass relevance on, whatever their shape (the identity rule,
Achtibat et al. 2024, equation 9); products share equally; what is linear shares by contribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import (
    ADDITIONS,
    DIFFERENCES,
    FACTORS,
    NEGATIONS,
    QUOTIENTS,
    REVERSED_DIFFERENCES,
)
from trompe.engine.decompose import hard_sigmoid
from trompe.engine.surrogates import (
    smooth_abs,
    smooth_adaptive_max_pool,
    smooth_amax,
    smooth_celu,
    smooth_elu,
    smooth_hard_sigmoid,
    smooth_hard_swish,
    smooth_hardtanh,
    smooth_leaky_relu,
    smooth_max_pool1d,
    smooth_max_pool3d,
    smooth_maximum,
    smooth_minimum,
    smooth_softshrink,
    smooth_threshold,
)
from trompe.engine.sweep import Rule, vjp
from trompe.rules.norm import Addition, Norm
from trompe.rules.normalisation import IDENTICAL, BatchNorm, GroupNorm, LayerNorm
from trompe.rules.passing import AVERAGES, STABILISER, passed
from trompe.rules.products import SOFTMAX, MatrixProduct, divided, gated, glu, softmax
from trompe.rules.sums import (
    INTERPOLATION,
    Resampling,
    SignedAddition,
    SignedProduct,
    SignedSum,
    Spread,
)

Table = dict[Callable[..., Any], Rule]


def _all(rule: Rule, *functions: Callable[..., Any]) -> Table:
    return dict.fromkeys(functions, rule)


ELEMENTWISE: Table = _all(
    passed,
    *(F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid, hard_sigmoid, F.leaky_relu, F.prelu),
    *(torch.prelu, F.rrelu, F.elu, F.selu, torch.selu, F.celu, torch.celu, F.gelu, F.silu, F.mish),
    *(F.softplus, F.softsign, F.tanhshrink, F.softshrink, F.hardshrink, F.threshold, F.logsigmoid),
    *(torch.threshold, torch.tanh, Tensor.tanh, F.tanh, torch.sigmoid, Tensor.sigmoid, F.sigmoid),
    *(torch.exp, Tensor.exp, torch.log, Tensor.log, torch.sqrt, Tensor.sqrt, torch.rsqrt),
    *(Tensor.rsqrt, torch.square, Tensor.square, torch.pow, Tensor.pow, Tensor.__pow__),
    *(*NEGATIONS, torch.abs, Tensor.abs, torch.erf, Tensor.erf),
    *(torch.exp2, Tensor.exp2, torch.expm1, Tensor.expm1, torch.log1p, Tensor.log1p, torch.log2),
    *(Tensor.log2, torch.log10, Tensor.log10, torch.sinh, Tensor.sinh, torch.cosh, Tensor.cosh),
    *(torch.atan, Tensor.atan, torch.arctan, torch.asinh, Tensor.arctan, Tensor.asinh),
    *(torch.erfc, Tensor.erfc, torch.special.erf, torch.special.exp2, Tensor.__rpow__),
    *(torch.special.expm1, torch.special.log1p, torch.special.ndtr, torch.special.erfc),
    *(torch.reciprocal, Tensor.reciprocal, torch.special.expit, Tensor.__abs__, torch.clip),
    *(smooth_hardtanh, smooth_hard_sigmoid, smooth_hard_swish, smooth_leaky_relu, smooth_elu),
    *(smooth_celu, smooth_threshold, smooth_softshrink, smooth_abs),
    *IDENTICAL,
)
"""Functions of one input, place by place, and normalisations that count as such."""

MOVING: Table = _all(
    vjp,
    *(torch.roll, Tensor.roll, torch.flip, Tensor.flip, torch.rot90, Tensor.repeat, torch.tile),
    *(Tensor.tile, Tensor.expand_as, torch.broadcast_to, Tensor.broadcast_to, Tensor.view_as),
    *(torch.repeat_interleave, Tensor.repeat_interleave, torch.index_select, Tensor.index_select),
    *(torch.gather, Tensor.gather, torch.masked_fill, Tensor.masked_fill, torch.where),
    *(
        Tensor.where,
        torch.swapaxes,
        torch.swapdims,
        Tensor.swapdims,
        Tensor.movedim,
        torch.moveaxis,
    ),
    *(torch.hstack, torch.vstack, torch.hsplit, torch.tensor_split, Tensor.tensor_split),
    *(torch.select, Tensor.select, torch.unflatten, torch.ravel, Tensor.ravel, torch.t, Tensor.t),
    *(torch.moveaxis, Tensor.moveaxis, torch.take_along_dim, Tensor.take_along_dim, torch.take),
    *(Tensor.take, Tensor.unfold, torch.fliplr, torch.flipud, Tensor.rot90, torch.dstack),
    *(torch.column_stack, torch.concatenate, torch.vsplit, torch.dsplit, Tensor.chunk),
    *(torch.slice_scatter, Tensor.slice_scatter, torch.select_scatter, Tensor.select_scatter),
    *(torch.masked_select, Tensor.masked_select, torch.positive, Tensor.positive),
    *(Tensor.__pos__, torch.squeeze, torch.narrow, Tensor.masked_scatter, torch.masked_scatter),
    *(Tensor.type, Tensor.half, Tensor.bfloat16, Tensor.type_as, torch.split_with_sizes),
    *(Tensor.split_with_sizes, Tensor.reshape_as, Tensor.squeeze, torch.diagonal, Tensor.diagonal),
    *(F.dropout1d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.pixel_unshuffle),
    *(F.pixel_shuffle, F.unfold, torch.pixel_unshuffle, torch.channel_shuffle),
    *(Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
    *(torch.maximum, torch.minimum, Tensor.maximum, Tensor.minimum, torch.max, Tensor.max),
    *(F.max_pool3d, torch.max_pool3d, F.adaptive_max_pool1d, torch.adaptive_max_pool1d),
    *(F.adaptive_max_pool3d, torch.logsumexp, Tensor.logsumexp, smooth_amax, smooth_maximum),
    *(smooth_minimum, smooth_max_pool1d, smooth_max_pool3d, smooth_adaptive_max_pool),
)
"""Operations that move values, or pass them to the winner: their own vector-Jacobian product."""

PRODUCTS: Table = {
    **_all(gated, *FACTORS),
    **_all(divided, *QUOTIENTS, Tensor.__rtruediv__),
    **_all(softmax, *SOFTMAX),
    F.glu: glu,
}
"""Gates, quotients and softmax."""


_SUMMED = (*(F.grid_sample, F.fold, torch.cumsum, Tensor.cumsum),)
_NORMS = (torch.norm, Tensor.norm, torch.linalg.vector_norm)
_DEVIATIONS = (torch.std, Tensor.std)
_VARIANCES = (torch.var, Tensor.var)
SUMS = (*ADDITIONS, *DIFFERENCES, *REVERSED_DIFFERENCES)
"""Sums and differences of two activations, or of one and a constant."""
_MATRIX_PRODUCTS = (
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm),
    *(torch.einsum, torch.functional.einsum),
)


def by_contribution(stabiliser: float = STABILISER, addition: Rule | None = None) -> Table:
    """What shares out by contribution: sums, averages, products, normalisations.

    Args:
        stabiliser: added to them, with their sign.
        addition: The rule of sums and differences; by default constants take nothing.
    """
    norm, product = Norm(stabiliser), MatrixProduct(stabiliser)
    addition = addition or Addition("proportional", False, stabiliser)
    return {
        **_all(product, *_MATRIX_PRODUCTS),
        **_all(norm, *AVERAGES, *_SUMMED, *_NORMS, *_DEVIATIONS),
        **_all(Resampling(norm), *INTERPOLATION),
        **_all(Norm(stabiliser, degree=2), *_VARIANCES),
        **_all(addition, *SUMS),
        F.batch_norm: BatchNorm(stabiliser),
        F.layer_norm: LayerNorm(stabiliser),
        F.group_norm: GroupNorm(stabiliser),
    }


def bounded(stabiliser: float = STABILISER) -> Table:
    """As ``by_contribution``, for z+: no share is larger than the relevance it is a share of.

    Sums are shared by the terms of their own sign (``trompe.rules.sums``), normalisations pass
    relevance on, and so does a softmax, whose Taylor expansion (proposition 3.1) may send on any
    multiple of what it gets.

    Args:
        stabiliser: Added to denominators.
    """
    addition, total = SignedAddition(stabiliser), SignedSum(stabiliser)
    return {
        **_all(SignedProduct(stabiliser), *_MATRIX_PRODUCTS),
        **_all(total, *AVERAGES, *_SUMMED),
        **_all(Resampling(total), *INTERPOLATION),
        **_all(Norm(stabiliser), *_NORMS),
        **_all(Spread(stabiliser), *_DEVIATIONS),
        **_all(Spread(stabiliser, degree=2), *_VARIANCES),
        **_all(addition, *SUMS),
        **_all(passed, F.batch_norm, F.layer_norm, F.group_norm, *SOFTMAX),
    }
