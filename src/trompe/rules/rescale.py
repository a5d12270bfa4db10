"""DeepLIFT's rescale rule: slopes between the input and a baseline instead of derivatives.

The rules work on a batch whose first half are the images and whose second half the baselines. What
is passed on are the multipliers of the images, in the first half; the second is zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.activations import (
    ACTIVATIONS,
    HARDTANH,
    LOWER_BOUND,
    MAXIMUM,
    MINIMUM,
    RELU,
    UPPER_BOUND,
)
from trompe.engine.arithmetic import (
    ADDITIONS,
    DIFFERENCES,
    FACTORS,
    QUOTIENTS,
    REVERSED_DIFFERENCES,
)
from trompe.engine.bends import BEND
from trompe.engine.pytree import swapped
from trompe.engine.selections import (
    ADAPTIVE_MAX_POOL,
    MAX_POOL1D,
    MAX_POOL2D,
    MAX_POOL3D,
    OPERATIONS,
    WHERE,
    functions_of,
)
from trompe.engine.sweep import Rule, RuleSet, vjp
from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp
from trompe.rules.general import ELEMENTWISE, MOVING
from trompe.rules.linear import LINEAR, transposed
from trompe.rules.normalisation import IDENTICAL
from trompe.rules.passing import STRUCTURE

_NEAR = 1e-7


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    image, baseline = tensor.chunk(2)
    return image, baseline


def convolved(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """A convolution: the multipliers of the baselines are zero, so their half is not computed."""
    tensor, alias = op.edges[0]
    weight: Tensor = op.argument(1, "weight")
    if len(op.edges) != 1 or alias.dim() != weight.dim():  # the weight too, or no batch
        return vjp(relevance, op)
    images = dataclasses.replace(op, edges=[(tensor, _halves(alias)[0])])
    out = transposed(images, _halves(relevance)[0], weight)
    return [torch.cat([out, torch.zeros_like(out)])]


def rescaled(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """``m (f(x) - f(x0)) / (x - x0)``; the derivative where x and x0 meet (equation 8)."""
    shares = vjp(relevance, op)
    if len(op.edges) != 1 or op.out.shape != op.edges[0][1].shape:
        return shares
    (x, x0), (y, y0) = (_halves(tensor) for tensor in _precisely(op))
    near = (x - x0).abs() < _NEAR
    slope = ((y - y0) / torch.where(near, 1.0, x - x0)).to(relevance.dtype)
    assert shares[0] is not None  # the only edge
    out = torch.where(near, _halves(shares[0])[0], _halves(relevance)[0] * slope)
    return [torch.cat([out, torch.zeros_like(out)])]


def _precisely(op: OpCall) -> tuple[Tensor, Tensor]:
    """An activation's input and output, whose differences are no rounding.

    A curved activation is computed again in double precision: where image and baseline are close,
    the difference of its values has lost its digits, and a slope made of it is noise.
    """
    given = op.edges[0][1]
    exact = op.func in _STRAIGHT or given.dtype == torch.float64 or given.device.type == "mps"
    if exact or not given.is_floating_point():
        return given, op.out

    def double(value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if floating else value

    kwargs = {name: double(value) for name, value in op.kwargs.items()}
    return given.double(), op.func(*map(double, op.args), **kwargs)


def winner(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """A maximum: what the winners of image and baseline contribute to the difference."""
    y, y0 = _halves(op.out)
    m = _halves(relevance)[0]
    most = torch.maximum(y, y0)
    (routed,) = vjp(torch.cat([m * (most - y0), m * (y - most)]), op)
    (plain,) = vjp(relevance, op)
    assert routed is not None  # the only edge
    assert plain is not None
    x, x0 = _halves(op.edges[0][1])
    near = (x - x0).abs() < _NEAR
    moved = sum(_halves(routed)) / torch.where(near, 1.0, x - x0)
    out = torch.where(near, _halves(plain)[0], moved)
    return [torch.cat([out, torch.zeros_like(out)])]


def _middle(tensor: Tensor) -> Tensor:
    x, x0 = _halves(tensor)
    mean = (x + x0) / 2
    return torch.cat([mean, mean])


def product(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """A product of two activations: its derivative midway, which accounts for the difference."""
    if len(op.edges) == 1:
        return vjp(relevance, op)
    known = {id(alias): _middle(alias) for _, alias in op.edges}
    args, kwargs = swapped((op.args, op.kwargs), lambda t: known.get(id(t), t))
    out = op.func(*args, **kwargs)
    ends = [known[id(alias)] for _, alias in op.edges]
    return torch.autograd.grad(out, ends, relevance, create_graph=True)


_RECTIFIERS = functions_of(*(act for act in ACTIVATIONS if act not in (MAXIMUM, MINIMUM)))
#: Whose values are those of their input, or constant: their differences are exact.
_STRAIGHT = frozenset(functions_of(RELU, HARDTANH, LOWER_BOUND, UPPER_BOUND, smoothed=False))
_MAXIMA = (
    *functions_of(MAX_POOL1D, MAX_POOL2D, MAX_POOL3D, *ADAPTIVE_MAX_POOL, smoothed=False),
    *MAX_POOL2D.smooth,
)
_SUMS = (
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(torch.mean, Tensor.mean, torch.sum, Tensor.sum, F.interpolate),
    *(*DIFFERENCES, *REVERSED_DIFFERENCES, torch.cumsum, Tensor.cumsum),
)
_PRODUCTS = (
    *FACTORS,
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm),
    *(torch.einsum, torch.functional.einsum),
)
_NO_DIFFERENCE = frozenset({*IDENTICAL, torch.maximum, torch.minimum, torch.max, torch.logsumexp})


def _divided(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """By a constant, a quotient is linear; of a constant, elementwise."""
    if len(op.edges) > 1:
        place = op.place or f"call {op.index}"
        raise UnsupportedOp(op.name, place, "rescale", "divides activations, and has no rule")
    constant = (op.args[0] if op.args else op.kwargs.get("input")) is op.edges[0][1]
    return vjp(relevance, op) if constant else rescaled(relevance, op)


RULES: dict[Callable[..., Any], Rule] = {
    **{function: vjp for function in MOVING if function not in _NO_DIFFERENCE},
    **dict.fromkeys((*STRUCTURE, *LINEAR, *ADDITIONS, *_SUMS, F.batch_norm), vjp),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), convolved),
    **{function: rescaled for function in ELEMENTWISE if function not in _NO_DIFFERENCE},
    **dict.fromkeys(_RECTIFIERS, rescaled),
    **dict.fromkeys(_MAXIMA, winner),
    **dict.fromkeys(_PRODUCTS, product),
    **dict.fromkeys(QUOTIENTS, _divided),
}
"""The rule of each operation; what has none, such as layer norm and softmax, is refused."""


ONLY = frozenset(
    {"maxout", BEND, *(operation.name for operation in OPERATIONS if operation is not WHERE)}
)
"""A choice by a comparison is made anew for image and baseline, which no slope accounts for."""


def rescale_rules() -> RuleSet:
    """The rules of DeepLIFT (rescale)."""
    return RuleSet("rescale", RULES, default=None, only=ONLY)
