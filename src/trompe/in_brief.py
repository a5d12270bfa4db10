"""A result on a few lines, as a prompt or a notebook shows it: tensors by their shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_MOST = 100  # characters of one field


class InBrief:
    """A dataclass (made with ``repr=False``) whose ``repr`` is a line per field.

    A tensor of at most four numbers is shown as it is, a larger one by its shape, a network by its
    class, a mapping by its keys, with their values where these are numbers.
    """

    def __repr__(self) -> str:
        """The class, and what its fields hold."""
        made: Any = self
        lines = [f"  {one.name}: {brief(getattr(self, one.name))}" for one in _shown(made)]
        return "\n".join([f"{type(self).__name__}", *lines])


def _shown(made: Any) -> list[dataclasses.Field[Any]]:
    return [one for one in dataclasses.fields(made) if one.repr]


def brief(value: Any) -> str:
    """A value on one line of at most 100 characters."""
    if isinstance(value, Tensor):
        if _is_small(value):
            return _short(brief(value.tolist()))
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Mapping):
        small = all(isinstance(v, int | float) or _is_small(v) for v in value.values())
        entries = [f"{key} {brief(v)}" if small else str(key) for key, v in value.items()]
        return _short(", ".join(entries)) if value else "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        if any(isinstance(one, Tensor | Mapping) or dataclasses.is_dataclass(one) for one in value):
            return f"{len(value)} of {type(value[0]).__name__}"
        return _short(", ".join(map(brief, value))) if value else "none"
    return _short(str(value))


def _is_small(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() <= 4 and not value.is_meta


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
