"""Packages that can be called: ``trompe.audit`` is a package and, for people, a function."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _function(package: ModuleType) -> Callable[..., Any]:
    """The function that stands for a package; found on first use, for it lies above."""
    found: Callable[..., Any] = getattr(
        importlib.import_module("trompe.api"), package.__name__.rpartition(".")[2]
    )
    return found


class _CallablePackage(ModuleType):
    """A package that passes calls to the function of its name in ``trompe.api``."""

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """See the function of this name in ``trompe.api``."""
        return _function(self)(*arguments, **named)


def make_callable(name: str) -> None:
    """Let the package ``name`` be called.

    An import of a package binds it in its parent, over any function of that name there: only the
    package itself can be both.
    """
    sys.modules[name].__class__ = _CallablePackage
