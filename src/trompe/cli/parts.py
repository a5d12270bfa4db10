"""Options that name registered parts: methods, objectives, constraints, certificates, ..."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from trompe.errors import UsageError
from trompe.names import resolve
from trompe.registry import (
    Registry,
    installed_plugins,
    load_plugin,
    named_plugins,
    shipped_names,
)
from trompe.written_part import made

Command = TypeVar("Command", bound=Callable[..., Any])

_HOMES = {
    "method": ("trompe.explain", "explainers"),
    "objective": ("trompe.attacks.objectives", "objectives"),
    "constraint": ("trompe.attacks.constraints", "constraints"),
    "step": ("trompe.attacks.steps", "steps"),
    "channel": ("trompe.attacks.channels", "channels"),
    "certificate": ("trompe.certificates.methods", "certificates"),
    "preset": ("trompe.attacks.presets", "presets"),
    "tampering": ("trompe.tampering.attacks", "tamperings"),
    "defence": ("trompe.defences.trained", "defences"),
}
"""Per kind of part: the package whose files register it, and the registry in it."""


def take_plugins(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--plugin MODULE``, wherever it stands; the modules are imported.

    Raises:
        UsageError: if a module is missing or cannot be imported.
    """
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return [*rest, word, *waiting]
        if word == "--plugin" and not waiting:
            raise UsageError("--plugin needs the name of a module: --plugin package.module")
        if word == "--plugin" or word.startswith("--plugin="):
            name = waiting.pop(0) if word == "--plugin" else word.partition("=")[2]
            load_plugin(name)
        else:
            rest.append(word)
    return rest


def registry_of(kind: str) -> Registry[Any]:
    """The registry of a kind of part; imports it."""
    package, name = _HOMES[kind]
    registry: Registry[Any] = getattr(importlib.import_module(package), name)
    return registry


def shipped(kind: str) -> list[str]:
    """The names of a kind of part that come with trompe, without importing torch."""
    return list(shipped_names(_HOMES[kind][0]))


def part_names(kind: str) -> list[str]:
    """The names of a kind of part, those of plugins with them."""
    return registry_of(kind).names() if named_plugins() or installed_plugins() else shipped(kind)


def preset_option(what: str) -> Callable[[Command], Command]:
    """The option that chooses the settings of an attack, the same for every command."""
    return click.option(
        "--preset",
        type=PartName("preset"),
        default="fast",
        show_default=True,
        metavar="NAME",
        help=f"{what} fast, thorough (twelve times the steps), or paper.",
    )


class PartName(click.ParamType):  # type: ignore[type-arg]  # newer clicks have one
    """The name of a registered part.

    Args:
        kind: of the part, a key of the table above.
    """

    def __init__(self, kind: str) -> None:
        self.kind = self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See ``click.ParamType``."""
        try:
            return resolve(str(value), self.kind, part_names(self.kind))
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """See ``click.ParamType``."""
        return [
            click.shell_completion.CompletionItem(name)
            for name in part_names(self.kind)
            if name.startswith(incomplete)
        ]


def part_option(*names: str, kind: str, what: str, **settings: Any) -> Callable[[Command], Command]:
    """An option whose value is ``NAME`` or ``NAME:VALUE`` or ``NAME:OPTION=VALUE,...``."""
    choices = ", ".join(shipped(kind))
    return click.option(
        *names,
        metavar="NAME[:OPTIONS]",
        help=f"{what} One of {choices}.",
        **settings,
    )


def make_part(kind: str, text: str) -> Any:
    """A registered part of a kind with its options; see ``trompe.written_part.made``."""
    return made(registry_of(kind), text)
