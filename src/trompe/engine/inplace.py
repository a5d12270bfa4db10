"""In-place calls made out-of-place, so that a recorded forward pass keeps every value it had.

A model may change a tensor in place and go on with the result (``x += y``), or ignore the result
and go on with the tensor (``x.relu_()``). Both are right here: the out-of-place result is returned,
and ``Redirects`` hands it out wherever the overwritten tensor is used later in the same pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.pytree import swapped

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    """``x[index] = value`` on a copy."""
    out = x.clone()
    out[index] = value
    return out


def copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """``x.copy_(source)`` out of place."""
    return source.to(x.dtype).expand_as(x)


def _filled(x: Tensor, value: Any) -> Tensor:
    return torch.full_like(x, value)


_TWINS: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.__setitem__: set_item,
    Tensor.copy_: copied,
    Tensor.fill_: _filled,
    F.relu_: F.relu,
    Tensor.zero_: torch.zeros_like,
}


@lru_cache(maxsize=4096)
def _inplace_position(func: Callable[..., Any]) -> int | None:
    """Where the parameter ``inplace`` stands among a function's positional arguments."""
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("inplace") if "inplace" in names else None


@lru_cache(maxsize=4096)
def _twin(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """The out-of-place function of the same meaning, if ``func`` changes its first argument."""
    if func in _TWINS:
        return _TWINS[func]
    name = getattr(func, "__name__", "")
    if name.startswith("__i") and name.endswith("__"):  # __iadd__ and the like
        plain = getattr(Tensor, f"__{name[3:]}", None)
        return plain if callable(plain) else None
    if name.endswith("_") and not name.endswith("__"):
        home: Any = Tensor if getattr(Tensor, name, None) is func else torch
        twin = getattr(home, name[:-1], None)
        return twin if callable(twin) else None
    return None


class Redirects:
    """Which tensors of this pass were overwritten, and by what."""

    def __init__(self) -> None:
        self._new: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []  # an id must not be used again while it is a key

    def overwrite(self, old: Tensor, new: Tensor) -> None:
        """Hand out ``new`` from now on wherever ``old`` is used."""
        if old is not new:
            self._new[id(old)] = new
            self._alive.append(old)

    def _follow(self, tensor: Tensor) -> Tensor:
        while id(tensor) in self._new:
            tensor = self._new[id(tensor)]
        return tensor

    def resolve(self, tree: Any) -> Any:
        """``tree`` with every overwritten tensor replaced."""
        return swapped(tree, self._follow) if self._new else tree


def out_of_place(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Call, Tensor | None]:
    """The call without its side effect, and the tensor it would have overwritten (or ``None``)."""
    position = _inplace_position(func)
    if position is not None:
        if kwargs.get("inplace"):
            return (func, args, {**kwargs, "inplace": False}), _first(args, kwargs)
        if len(args) > position and args[position]:
            args = (*args[:position], False, *args[position + 1 :])
            return (func, args, kwargs), _first(args, kwargs)
    twin = _twin(func)
    if twin is not None:
        return (twin, args, kwargs), _first(args, kwargs)
    return (func, args, kwargs), None


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    value = args[0] if args else kwargs.get("input", kwargs.get("self"))
    return value if isinstance(value, Tensor) else None
