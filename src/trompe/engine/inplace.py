"""In-place calls made out-of-place, so that a recorded forward pass keeps every value it had.

A model may change a tensor in place and go on with the result (``x += y``), or ignore the result
and go on with the tensor (``x.relu_()``). Both are right here: the out-of-place result is returned,
and ``Redirects`` hands it out wherever the overwritten tensor is used later in the same pass.
Where views share the memory that is overwritten, they are taken anew.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from trompe.engine.pytree import swapped

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    """``x[index] = value`` on a copy."""
    out = x.clone()
    out[index] = value
    return out


def overlaid(x: Tensor, part: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    """A copy of ``x`` with ``part`` in the place of a view of it.

    (PyTorch 2.14's ``as_strided_scatter`` fails a check of its derivatives.)
    """
    if has_torch_function((x, part)):
        return handle_torch_function(overlaid, (x, part), x, part, size, stride, offset)
    out = x.clone()
    out.as_strided(size, stride, offset - x.storage_offset() + out.storage_offset()).copy_(part)
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
def twin(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """The out-of-place function of the same meaning, if ``func`` changes its first argument."""
    if func in _TWINS:
        return _TWINS[func]
    name = getattr(func, "__name__", "")
    if name.startswith("__i") and name.endswith("__"):  # __iadd__ and the like
        plain = getattr(Tensor, f"__{name[3:]}", None)
        return plain if callable(plain) else None
    if isinstance(func, torch._ops.OpOverload):
        space, _, plain = func._schema.name.rstrip("_").partition("::")
        packet = getattr(getattr(torch.ops, space), plain, None)
        if func._schema.name.endswith("_") and packet is not None:
            return getattr(packet, func._overloadname, None)
        return None
    if name.endswith("_") and not name.endswith("__"):
        homes: tuple[Any, ...] = (Tensor, torch, F, torch._C._nn, torch.ops.aten)
        home = next((h for h in homes if getattr(h, name, None) is func), torch)
        return _callable_in((home, F, torch, Tensor), name[:-1])
    return None


def _callable_in(homes: tuple[Any, ...], name: str) -> Callable[..., Any] | None:
    found = (getattr(home, name, None) for home in homes)
    return next((function for function in found if callable(function)), None)


class Redirects:
    """Which tensors of this pass were overwritten, and by what."""

    def __init__(self) -> None:
        self._new: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []  # an id must not be used again while it is a key
        self._views: dict[int, list[Any]] = {}

    def overwrite(self, old: Tensor, new: Tensor) -> None:
        """Hand out ``new`` from now on wherever ``old`` is used."""
        if old is not new:
            self._new[id(old)] = new
            self._alive.append(old)

    def track(self, tensor: Tensor) -> None:
        """Note a tensor that may be a view of another: it changes when that does."""
        base = tensor._base
        if base is not None:
            if id(base) not in self._views:
                self._views[id(base)] = []
                self._alive.append(base)
            self._views[id(base)].append(weakref.ref(tensor))

    def shared(self, old: Tensor) -> bool:
        """Whether tracked tensors share the memory of ``old``."""
        return old._base is not None or id(old) in self._views

    def overwrite_shared(self, old: Tensor, new: Tensor) -> None:
        """As ``overwrite``, where views of ``old``, or what it is a view of, change with it.

        The views are taken anew of a copy that has the new values in their place.
        """
        root = old if old._base is None else old._base
        if old is root and new.stride() == root.stride() and new.storage_offset() == 0:
            whole = new
        else:
            whole = overlaid(root, new, old.shape, old.stride(), old.storage_offset())
        views = [view() for view in self._views.pop(id(root), [])]
        self.overwrite(root, whole)
        moved = whole.storage_offset() - root.storage_offset()
        for view in [old, *(v for v in views if v is not None)]:
            if view is not root and id(view) not in self._new:
                again = whole.as_strided(view.shape, view.stride(), view.storage_offset() + moved)
                self.overwrite(view, again)
                self.track(again)

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
        training = args[2] if len(args) > 2 else kwargs.get("training", True)
        if func in _DROPOUTS and not training:
            return (func, args, kwargs), None  # nothing is changed
        if kwargs.get("inplace"):
            return (func, args, {**kwargs, "inplace": False}), _first(args, kwargs)
        if len(args) > position and args[position]:
            args = (*args[:position], False, *args[position + 1 :])
            return (func, args, kwargs), _first(args, kwargs)
    plain = twin(func)
    if plain is not None:
        return (plain, args, kwargs), _first(args, kwargs)
    return (func, args, kwargs), None


_DROPOUTS = frozenset(
    {
        *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout),
        F.feature_alpha_dropout,
    }
)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    value = args[0] if args else kwargs.get("input", kwargs.get("self"))
    return value if isinstance(value, Tensor) else None
