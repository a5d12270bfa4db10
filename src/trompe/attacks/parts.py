"""The parts of an attack, checked and described."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from trompe.errors import UsageError


def part_of(kind: Any, given: object, argument: str) -> Any:
    """``given``, if it is of the kind.

    Raises:
        UsageError: otherwise, naming the argument.
    """
    if not isinstance(given, kind):
        hint = ": call it" if isinstance(given, type) and issubclass(given, kind) else ""
        raise UsageError(f"{argument} takes a {kind.__name__}, not {given!r}{hint}")
    return given


def named(part: Any) -> dict[str, Any]:
    """A part's name and options, JSON-serialisable; of tensors their shapes alone."""
    options = {f.name: _plain(getattr(part, f.name)) for f in dataclasses.fields(part)}
    return options if type(part).__name__ == "Preset" else {"name": type(part).__name__, **options}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return named(value)
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
