"""What is common to rules of linear operations: their parts, and runs with changed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from trompe.engine import lean
from trompe.engine.adjoints import geometry_of_call
from trompe.engine.layout import channels_last
from trompe.engine.tape import OpCall

LINEAR: tuple[Callable[..., Any], ...] = (
    F.linear,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
)
"""Operations ``func(x, weight, bias, ...)``."""


def output_axis(op: OpCall) -> int:
    """The dimension of the weight that its outputs are numbered along."""
    return 1 if "transpose" in op.func.__name__ else 0


def weight_of(op: OpCall, part: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The weight of a linear operation, times what is folded into it, or a part of that.

    Args:
        op: the operation.
        part: a function of the weight, such as its positive part; computed once per weight.
    """
    weight: Tensor = op.argument(1, "weight")
    factor = op.notes.factor
    if factor is None:
        return weight if part is None else memo(weight, part.__name__, part)
    shape = [1] * weight.dim()
    shape[output_axis(op)] = -1

    def make(original: Tensor) -> Tensor:
        scaled = original * factor.view(shape)
        return scaled if part is None else part(scaled)

    if factor.requires_grad or not op.notes.lasts:
        return make(weight)
    return memo(weight, f"{part and part.__name__} {id(factor)}", make, factor)


def positive(weight: Tensor) -> Tensor:
    """The positive part."""
    return weight.clamp(min=0)


def negative(weight: Tensor) -> Tensor:
    """The negative part."""
    return weight.clamp(max=0)


def bias_of(op: OpCall) -> Tensor | None:
    """The bias of a linear operation (without that of a folded batch norm)."""
    bias: Tensor | None = op.argument(2, "bias")
    return bias


def input_of(op: OpCall) -> Tensor:
    """The alias of the activations that a linear operation took."""
    return op.edges[0][1]


def apply(op: OpCall, x: Tensor, weight: Tensor) -> Tensor:
    """The operation without its bias, with another input and weight."""
    geometry = geometry_of_call(op)
    if geometry is not None and not weight.requires_grad:
        return lean.convolution(x, weight, geometry)
    args, kwargs = list(op.args), {k: v for k, v in op.kwargs.items() if k != "bias"}
    for position, (name, value) in enumerate((("input", x), ("weight", weight))):
        if len(args) > position:
            args[position] = value
        else:
            kwargs[name] = value
    if len(args) > 2:
        args[2] = None
    out: Tensor = op.func(*args, **kwargs)
    return out


def transposed(op: OpCall, relevance: Tensor, weight: Tensor) -> Tensor:
    """``J^T relevance`` for the operation with another weight, of the shape of its input."""
    x = input_of(op)
    if op.func is F.linear:
        return relevance @ weight
    geometry = geometry_of_call(op)
    if geometry is not None and not weight.requires_grad:
        if channels_last(op.out):  # as the activations that it is multiplied by
            relevance = relevance.contiguous(memory_format=torch.channels_last)
        return lean.transposed(relevance, weight, geometry, x.shape)
    with torch.enable_grad():  # a graph of its own, also where the map is to carry none
        again = apply(op, x, weight)
    (out,) = torch.autograd.grad(again, x, relevance, create_graph=torch.is_grad_enabled())
    return out


def transposed_pair(
    op: OpCall, relevance: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """``transposed`` with two weights: one convolution into twice the channels, where it can be.

    A first layer takes so few channels that two maps would cost twice as much as one.
    """
    x, geometry = input_of(op), geometry_of_call(op)
    if geometry is None or geometry.groups > 1 or first.requires_grad or second.requires_grad:
        return transposed(op, relevance, first), transposed(op, relevance, second)

    def stack(_: Tensor) -> Tensor:
        return torch.cat([first, second], dim=1)

    stacked = memo(second, f"stacked {id(first)}", stack, first)
    shape = torch.Size((x.shape[0], 2 * x.shape[1], *x.shape[2:]))
    of_first, of_second = lean.transposed(relevance, stacked, geometry, shape).chunk(2, dim=1)
    return of_first, of_second


class Memo:
    """Values derived from weights, kept while the weight lives and is not changed.

    A step of an attack would else spend a pass over all weights (VGG-16 has 138 million) to split
    them into signs. Weights that require grad are not kept: their values carry a graph.
    """

    def __init__(self) -> None:
        self._values: Any = WeakIdKeyDictionary()

    def __call__(
        self, weight: Tensor, key: str, make: Callable[[Tensor], Tensor], *named: object
    ) -> Tensor:
        """``make(weight)``, computed once.

        Args:
            weight: The tensor that the value is kept with.
            key: Names the value among those of the weight.
            make: Computes the value.
            named: What the key names by its id: kept with the value, so that the id stays its own.
        """
        if weight.requires_grad or weight.grad_fn is not None:
            return make(weight)
        entry = self._values.setdefault(weight, {})
        # ``model.to(...)`` and ``weight.data = ...`` exchange the memory and count no new version.
        state = (weight._version, weight.untyped_storage()._cdata, weight.dtype, weight.device)
        if key not in entry or entry[key][0] != state:
            # ``make`` is not kept: it may close over the activations of this one pass.
            entry[key] = (state, make(weight), named)
        value: Tensor = entry[key][1]
        return value


memo = Memo()
"""The process-wide memo of the rules."""
