"""What is given to a function of the library: of the right kind, or one line that says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

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
