"""Parts as people write them: ``linf:8/255``, ``jpeg:quality=75``."""

from __future__ import annotations

import dataclasses
from typing import Any

from trompe.errors import UsageError
from trompe.registry import Registry


def made(registry: Registry[Any], text: str) -> Any:
    """A registered part with its options, as the command line and an audit's settings write them.

    Args:
        registry: of the parts of its kind.
        text: ``linf:8/255`` gives the first option, ``jpeg:quality=75`` names it; a name alone
            leaves all options as they are.

    Raises:
        UsageError: if there is no such part or option, one is missing, or has no such value.
    """
    kind = registry.kind
    name, _, written = text.partition(":")
    part = registry[name]
    known = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    fields = [field.name for field in known if field.init]
    options: dict[str, Any] = {}
    for position, entry in enumerate(filter(None, written.split(","))):
        key, equals, value = entry.partition("=")
        if not equals:
            if position >= len(fields):
                raise UsageError(f"{kind} {name} has no option for '{entry}'")
            key, value = fields[position], key
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise UsageError(f"{kind} {name} has no option '{key}': it has {names}")
        options[key] = number(value)
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
        missing = f"needs {', '.join(required)}, as in {name}:{required[0]}=..." if required else ""
        raise UsageError(f"{kind} {name} {missing or f'cannot be made: {error}'}") from error


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
            float(found)
        except (ValueError, OverflowError):
            continue
        return found
    above, slash, below = text.partition("/")
    if slash:
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return text
    return text
