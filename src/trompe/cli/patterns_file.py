"""A file of learned patterns that an option names."""

from __future__ import annotations

import click


def readable_patterns(
    context: click.Context, option: click.Parameter, path: str | None
) -> str | None:
    """A file of patterns, read whether or not the method needs it: a wrong one is not ignored."""
    if path is not None:
        from trompe.rules.patterns import read_patterns

        read_patterns(path)
    return path


patterns_option = click.option(
    "--patterns",
    metavar="FILE",
    callback=readable_patterns,
    help="Learned patterns, for pattern_attribution.",
)
