"""Tensors in the arguments of a call: what pytrees do, quick where they are flat.

A recorded pass looks through the arguments of every operation, most of which are a few tensors and
numbers; on a small network PyTorch's general walk took as long as the operations themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

_PLAIN = (bool, int, float, str, complex, type(None), torch.dtype, torch.device, slice)
_PLAIN_TYPES = frozenset(_PLAIN)


def tensors_in(*values: Any) -> list[Tensor]:
    """All tensors in arguments or results, in their order."""
    found: list[Tensor] = []
    _collect(values, found)
    return found


def _collect(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:
        kind = type(value)
        if kind in _PLAIN_TYPES:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif kind is tuple or kind is list:
            _collect(value, found)
        elif kind is dict:
            _collect(value.values(), found)
        elif not isinstance(value, _PLAIN):
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def swapped(value: Any, swap: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with ``swap(t)`` in place of every tensor t."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if isinstance(value, Tensor):
        return swap(value)
    if kind is tuple:
        return tuple([swapped(v, swap) for v in value])
    if kind is list:
        return [swapped(v, swap) for v in value]
    if kind is dict:
        return {k: swapped(v, swap) for k, v in value.items()} if value else {}
    if isinstance(value, _PLAIN):
        return value
    return tree_map_only(Tensor, swap, value)
