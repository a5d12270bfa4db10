"""Options that a command would not heed are refused: who gave them thinks that they count."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.core import ParameterSource

from trompe.errors import UsageError


def refuse_ignored(names: Iterable[str], needed: str) -> None:
    """Refuse options of the running command that were given and would be ignored.

    Args:
        names: of the options' parameters.
        needed: what they are for, as ``--method noise``.

    Raises:
        UsageError: if one of them was given.
    """
    context, named = click.get_current_context(), set(names)
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in named
        and context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
    ]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise UsageError(f"{' and '.join(given)} {verb} for {needed}")
