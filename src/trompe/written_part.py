"""Parts as people write them: ``linf:8/255``, ``jpeg:quality=75``, ``region:0:0:1/2:1/2``."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from trompe.errors import UsageError
from trompe.registry import Registry

#: Tensors of 32 bits hold not much larger numbers.
_LARGEST = 1e30


def made(registry: Registry[Any], text: str) -> Any:
    """A registered part with its options, as the command line and an audit's settings write them.

    Args:
        registry: of the parts of its kind.
        text: ``linf:8/255`` gives the first option, ``jpeg:quality=75`` names it; an option of
            several numbers has colons between them, ``shift:by=0.25:-0.5``; a name alone leaves
            all options as they are.

    Raises:
        UsageError: if there is no such part or option, one is missing, or has no such value.
    """
    name, _, written = text.partition(":")
    return with_options(registry[name], written, called=f"{registry.kind} {name}", lead=f"{name}:")


def with_options(part: Any, written: str, *, called: str, lead: str = "") -> Any:
    """A dataclass made with options as people write them, the first ones perhaps without names.

    Args:
        part: its type.
        written: the options, ``8/255`` or ``quality=75``, separated by commas.
        called: what it is called in messages.
        lead: what is written before the options, for the way out in messages.

    Raises:
        UsageError: if there is no such option, one is missing, or has no such value.
    """
    known = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    fields = [field.name for field in known if field.init]
    options: dict[str, Any] = {}
    for position, entry in enumerate(filter(None, written.split(","))):
        key, equals, value = entry.partition("=")
        if not equals:
            if position >= len(fields):
                raise UsageError(f"{called} has no option for '{entry}'")
            key, value = fields[position], key
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise UsageError(f"{called} has no option '{key}': it has {names}")
        counts = _counts(part, key)
        if counts and value.lower() != "none":
            options[key] = _numbers(value, counts, f"{called}: {key} cannot be '{value}'")
            continue
        options[key] = number(value)
        declared = next(field.type for field in known if field.name == key)
        if wanted := _unlike(options[key], declared):
            raise UsageError(f"{called}: {key} cannot be '{value}': {wanted}")
    try:
        return part(**options)
    except TypeError as error:
        required = [
            field.name
            for field in known
            if field.init
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and field.name not in options
        ]
        missing = f"needs {', '.join(required)}, as in {lead}{required[0]}=..." if required else ""
        raise UsageError(f"{called} {missing or f'cannot be made: {error}'}") from error


def _counts(part: Any, key: str) -> int | None:
    """How many numbers an option of several takes, -1 for any number; none: it takes no several."""
    try:
        hint = get_type_hints(part).get(key)
    except (NameError, TypeError):  # of a plugin that imports names for its type checker alone
        return None
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        inner = get_args(kind)
        if get_origin(kind) is tuple and set(inner) <= {float, int, ...}:
            return -1 if ... in inner else len(inner)
    return None


def _numbers(value: str, count: int, complaint: str) -> tuple[float, ...]:
    """Finite numbers with colons between them."""
    found = [number(entry) for entry in value.split(":")]
    if any(_unlike(one, "float") for one in found) or count not in (-1, len(found)):
        many = "numbers" if count == -1 else f"{count} numbers"
        raise UsageError(f"{complaint}: give {many} with colons between them")
    return tuple(found)


def _unlike(value: Any, declared: Any) -> str | None:
    """What should be given in place of a value that is not of the declared type of its option.

    Args:
        value: as ``number`` read it.
        declared: type, or its text, such as ``int | None``.
    """
    text = declared.__name__ if isinstance(declared, type) else str(declared)
    kinds = {kind.strip() for kind in text.split("|")}
    found: list[str] = []
    if kinds & {"Any", "object"}:
        return None
    if "None" in kinds and value is None:
        return None
    if "bool" in kinds:
        found.append("true or false")
        if isinstance(value, bool):
            return None
    if "float" in kinds:
        found.append("a finite number")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if abs(value) <= _LARGEST:
                return None
            if math.isfinite(value):
                found[-1] = f"a number within -{_LARGEST:g} and {_LARGEST:g}"
    elif "int" in kinds:
        found.append("a whole number")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return None
    if "str" in kinds or text.startswith(("Literal", "typing.Literal")):
        found.append("a word")
        if isinstance(value, str):
            return None
    if not found:
        return "it can be given from Python only"
    return f"give {' or '.join(found)}"


def number(text: str) -> Any:
    """A number (8/255 too), true or false, none, or the text itself.

    A whole number that no float can hold is text, too: nothing could be computed with it.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            found = kind(text)
            size = abs(float(found))
        except (ValueError, OverflowError):
            continue
        return found if size < 2**63 else float(found)  # no tensor takes a larger whole number
    above, slash, below = text.partition("/")
    if slash:
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return text
    return text
