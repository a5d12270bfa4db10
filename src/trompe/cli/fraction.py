"""An option that takes a share as people write it."""

from __future__ import annotations

from typing import Any

import click

from trompe.cli.options import Number
from trompe.written_part import number


class Fraction(Number):
    """A positive number, such as ``0.03`` or ``8/255``."""

    def __init__(self) -> None:
        super().__init__(0.0, above=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See ``click.ParamType``."""
        return super().convert(number(value) if isinstance(value, str) else value, param, ctx)
