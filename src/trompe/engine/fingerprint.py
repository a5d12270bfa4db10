"""What a captured step depends on beside its inputs, as a value that can be compared."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


class _Unknown(Exception):
    """A value of which two cannot be told to be the same."""


def fingerprint(*values: Any) -> Hashable | None:
    """A key that is equal where the values would do the same.

    Tensors count by their memory and its version, so that a change in place makes another key;
    modules by their class and all that they hold; functions without a closure by themselves.

    Args:
        values: numbers, text, tensors, modules, dataclasses, and containers of them.

    Returns:
        The key, or ``None`` if one of the values cannot be compared in this way.
    """
    seen: dict[int, int] = {}
    try:
        return tuple(_key(value, seen) for value in values)
    except _Unknown:
        return None


def layout(tensor: Tensor) -> Hashable:
    """All of a tensor but its numbers."""
    return (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)


def _key(value: Any, seen: dict[int, int]) -> Hashable:
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value)
    if isinstance(value, Tensor):
        if value.is_inference():
            raise _Unknown  # has no version
        return (layout(value), value.data_ptr(), value._version, value.requires_grad)
    if isinstance(value, types.BuiltinFunctionType):
        return ("builtin", value)
    if isinstance(value, types.FunctionType) and not value.__closure__:
        return ("function", value)
    if id(value) in seen:
        return ("again", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, nn.Module):
        return (type(value), _key(vars(value), seen))
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return (type(value), tuple(_key(getattr(value, f.name), seen) for f in fields))
    if isinstance(value, Mapping):
        return (
            type(value),
            tuple((_key(k, seen), _key(v, seen)) for k, v in value.items()),
        )
    if isinstance(value, (tuple, list)):
        return (type(value), tuple(_key(part, seen) for part in value))
    if isinstance(value, (set, frozenset)):
        return (type(value), frozenset(_key(part, seen) for part in value))
    raise _Unknown
