"""What is given to a function of the library: of the right kind, or one line that says so."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from trompe.errors import UsageError

Kind = TypeVar("Kind")


def in_short(value: Any) -> str:
    """A value in a few words, on one line: numbers and texts as they are, all else by its kind."""
    plain = value is None or isinstance(value, str | float | bool)
    plain = plain or (isinstance(value, int) and abs(value) < 10**20)
    text = repr(value) if plain else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def number(name: str, value: Any) -> float:
    """A finite number, or a tensor of one.

    Raises:
        UsageError: if it is none.
    """
    try:
        found = math.nan if isinstance(value, str | bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{name} must be a finite number, not {in_short(value)}")
    return found


def of_kind(name: str, value: Any, kind: type[Kind]) -> Kind:
    """A value of a class.

    Raises:
        UsageError: if it is of another one.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{name} must be a {kind.__name__}, not {in_short(value)}")
    return value


def options(owner: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments of a dataclass that are not of the kinds that its fields are declared as.

    Booleans, numbers, texts, tensors and this package's own classes are checked; a field that may
    be anything else is left to its owner.

    Args:
        owner: the dataclass.
        args: that it is made with.
        kwargs: likewise.

    Raises:
        UsageError: naming the option.
    """
    made: Any = owner  # which mypy does not take for hashable
    fields = _fields(made)
    for name, value in (*zip(fields, args, strict=False), *kwargs.items()):
        kinds = fields.get(name)
        if kinds and not any(_is(value, kind) for kind in kinds):
            said = " or ".join(dict.fromkeys(map(_said, kinds)))
            raise UsageError(f"{name} must be {said}, not {in_short(value)}")


_SAID: dict[type[Any], str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "None",
    tuple: "a tuple",
    Mapping: "a mapping",
    Tensor: "a tensor",
}


def _said(kind: type[Any]) -> str:
    name = kind.__name__
    return _SAID.get(kind) or f"a{'n' if name[0] in 'AEIOU' else ''} {name}"


@functools.cache
def _fields(owner: Any) -> dict[str, tuple[type[Any], ...]]:
    """The kinds that each field of a dataclass may be, in their order; none: anything."""
    try:
        hints = get_type_hints(owner)
    except (NameError, TypeError):  # of a plugin that imports names for its type checker alone
        hints = {}
    names = [field.name for field in dataclasses.fields(owner) if field.init]
    return {name: _kinds(hints.get(name)) for name in names}


def _kinds(hint: Any) -> tuple[type[Any], ...]:
    """The classes that an annotation allows; none where it allows what cannot be told."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(hint)]
        return tuple(kind for part in parts for kind in part) if all(parts) else ()
    if origin is Literal:
        return tuple(dict.fromkeys(type(value) for value in get_args(hint)))
    if origin is tuple:
        return (tuple,)
    if origin is Mapping:
        return (Mapping,)
    own = isinstance(hint, type) and hint.__module__.split(".")[0] == "trompe"
    return (hint,) if own or hint in _SAID else ()


def _is(value: Any, kind: type[Any]) -> bool:
    """Whether a value is of a kind; numbers of NumPy are numbers, truth values are none."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return kind is bool
    if kind is int:
        return isinstance(value, numbers.Integral)
    if kind is float:
        return isinstance(value, numbers.Real) or (isinstance(value, Tensor) and not value.dim())
    return isinstance(value, (tuple, list) if kind is tuple else kind)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some names.

    Raises:
        UsageError: if it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        said = f"'{value}'" if isinstance(value, str) and len(value) <= 80 else in_short(value)
        raise UsageError(f"unknown {name} {said}: choose from {', '.join(choices)}")
    return value


def function(name: str, value: Callable[..., Any] | bool | None) -> None:
    """Refuse what is neither a function, nor a truth value, nor nothing.

    Raises:
        UsageError: if it is something else.
    """
    if value is None or isinstance(value, bool):
        return
    if not callable(value) or isinstance(value, torch.nn.Module):
        raise UsageError(f"{name} must be a function, not {in_short(value)}")


def explains(value: Any) -> None:
    """Refuse what cannot be called as ``(model, x, target)``: a network, say, or another function.

    Raises:
        UsageError: if it cannot.
    """
    known = "a name of trompe.methods() or a function (model, x, target) -> map"
    if isinstance(value, type) or not callable(value):
        raise UsageError(f"explainer must be {known}, not {in_short(value)}")
    called: Any = value.forward if isinstance(value, torch.nn.Module) else value
    try:
        inspect.signature(called).bind(None, None, None)
    except ValueError:  # of a function that tells nothing about itself
        return
    except TypeError as error:
        raise UsageError(f"explainer must be {known}; {in_short(value)} takes others") from error


def classes(target: Any) -> Tensor:
    """Class numbers as a tensor.

    Raises:
        UsageError: if they are none.
    """
    try:
        found = torch.as_tensor(target)
        strange = found.layout != torch.strided or found.device.type == "meta"
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"target must be class numbers, one per image or one for all, not {in_short(target)}"
        ) from error
    if strange:
        raise UsageError("target must be class numbers: give a dense tensor [B]")
    return found
