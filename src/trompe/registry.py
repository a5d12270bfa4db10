"""Named, pluggable parts: one file with one decorated object adds one choice everywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from trompe.errors import UsageError

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one kind, by name, found by importing the modules of one package.

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

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Part:
        """Return the part called ``name``.

        Raises:
            UsageError: if there is none; the message lists those there are.
        """
        self._load()
        if name not in self._parts:
            raise UsageError(f"unknown {self.kind} '{name}': choose from {', '.join(self.names())}")
        return self._parts[name]
