"""Named, pluggable parts: one file with one decorated object adds one choice everywhere."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from trompe.errors import UsageError
from trompe.names import resolve

Part = TypeVar("Part")

PLUGINS = "trompe.plugins"
"""The group of entry points whose modules are imported for the parts that they register."""


VARIABLE = "TROMPE_PLUGINS"
"""The environment variable that names further such modules, separated by commas."""


class Registry(Generic[Part]):
    """The parts of one kind, by name: those of a package of trompe, and those of plugins.

    The modules of the package are imported when the first name is asked for, and so are the
    modules that installed packages name as entry points of the group ``trompe.plugins``. A module
    of one's own that registers a part needs nothing but to be imported.

    Args:
        kind: what a part is called in messages, such as ``explanation method``.
        package: dotted name of the package whose modules register parts when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._parts: dict[str, Part] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that files its object under ``name``.

        Raises:
            ValueError: if the name is taken by another object.
        """

        def decorate(part: Part) -> Part:
            if name in self._parts and self._parts[name] is not part:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._parts[name] = part
            return part

        return decorate

    def _load(self) -> None:
        if self._complete:
            return
        self._complete = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for plugin in (*(entry.value for entry in installed_plugins()), *named_plugins()):
            load_plugin(plugin)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Part:
        """Return the part called ``name``, or spelt so or usually called so.

        Raises:
            UsageError: if there is none; the message lists those there are.
        """
        self._load()
        return self._parts[resolve(name, self.kind, self.names())]

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """The part called ``name``, a dataclass, made with options.

        Raises:
            UsageError: if there is no such part or option.
        """
        kind: Any = self[name]
        known = [field.name for field in dataclasses.fields(kind)]
        for option in options:
            if option not in known:
                raise UsageError(
                    f"{name} has no option '{option}': it has {', '.join(known) or 'none'}"
                )
        return kind(**options)

    def name_of(self, part: object) -> str:
        """The name under which the class of a part is registered; else that of the class."""
        names = [name for name in self if self[name] is type(part)]
        return names[0] if names else type(part).__name__


def installed_plugins() -> tuple[EntryPoint, ...]:
    """The modules that installed packages name as plugins."""
    return tuple(entry_points(group=PLUGINS))


def named_plugins() -> list[str]:
    """The modules named by the environment variable ``TROMPE_PLUGINS``, separated by commas."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def load_plugin(name: str) -> None:
    """Import a module for the parts that it registers.

    It is noted in the environment, so that processes started from here import it, too.

    Args:
        name: dotted, such as ``package.module``; the current folder is looked in, too.

    Raises:
        UsageError: if it cannot be imported, with the reason.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        importlib.import_module(name)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"the plugin '{name}' cannot be imported: {reason}") from error
    finally:
        sys.path.remove(here)
    if name not in named_plugins() and name not in {one.value for one in installed_plugins()}:
        os.environ[VARIABLE] = ",".join([*named_plugins(), name])


@functools.cache
def shipped_names(package: str) -> tuple[str, ...]:
    """The names that the files of a package of trompe register, read off without running them.

    Importing them would import torch, which takes seconds; a command line that only shows its help
    has no use for it.

    Args:
        package: dotted name, such as ``trompe.explain``.
    """
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    found = []
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for call in getattr(node, "decorator_list", ()):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute)
                    and call.func.attr == "register"
                    and isinstance(call.args[0], ast.Constant)
                ):
                    found.append(str(call.args[0].value))
    return tuple(sorted(found))
