"""Tensors in the arguments of a call: what pytrees do, quick where they are flat.

A recorded pass looks through the arguments of every operation, most of which are a few tensors and
numbers; on a small network PyTorch's general walk took as long as the operations themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

_PLAIN = (bool, int, float, str, complex, type(None), torch.dtype, torch.device, slice)


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """All tensors in arguments or results, in their order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (tuple, list):
            yield from tensors_in(*value)
        elif type(value) is dict:
            yield from tensors_in(*value.values())
        elif not isinstance(value, _PLAIN):
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def swapped(value: Any, swap: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with ``swap(t)`` in place of every tensor t."""
    if isinstance(value, Tensor):
        return swap(value)
    if type(value) is tuple:
        return tuple([swapped(v, swap) for v in value])
    if type(value) is list:
        return [swapped(v, swap) for v in value]
    if type(value) is dict:
        return {k: swapped(v, swap) for k, v in value.items()}
    if isinstance(value, _PLAIN):
        return value
    return tree_map_only(Tensor, swap, value)
