"""All commands of the command line, those of groups too."""

from __future__ import annotations

from collections.abc import Iterator

import click

from trompe.cli import command


def every_command() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The words that call a command, and the command."""
    yield from _commands(command, click.Context(command))


def _commands(
    group: click.Group, context: click.Context, *path: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one is not None
        if isinstance(one, click.Group):
            yield from _commands(one, context, *path, name)
        else:
            yield (*path, name), one
