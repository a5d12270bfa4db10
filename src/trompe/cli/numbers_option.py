"""An option that takes as many numbers as follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Numbers(click.Option):
    """A ``multiple`` option of as many numbers as follow it, such as one per channel."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Take the numbers that follow the first one off the command line, too."""
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            known = parser._long_opt[name]
            process = known.process

            def take(value: Any, state: Any, process: Callable[..., None] = process) -> None:
                process(value, state)
                while state.rargs and _is_number(state.rargs[0]):
                    process(state.rargs.pop(0), state)

            known.process = take

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The numbers, or ``None`` where the option was not given."""
        return super().process_value(ctx, value) or None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
