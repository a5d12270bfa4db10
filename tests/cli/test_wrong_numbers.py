"""Every option of every command that takes a number refuses what is none, before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import pytest
from every_command import every_command

from trompe.cli.options import Number

NEVER = ("", " ", "x", "nan", "-nan", "inf", "-inf", "1e999", "1,5", "0x10", "\u0661x", "9" * 400)
"""No number option takes these."""
NO_COUNT = ("1.5", "1e3", "-1", "9" * 20, str(2**63), str(-(2**70)))
"""No option that takes a whole number takes these."""


WHOLE = (click.types.IntParamType, click.IntRange)
REAL = (click.types.FloatParamType, click.FloatRange, Number)


def number_options() -> Iterator[tuple[tuple[str, ...], click.Command, click.Option]]:
    for path, one in every_command():
        for option in one.params:
            if isinstance(option, click.Option) and isinstance(option.type, WHOLE + REAL):
                yield path, one, option


OPTIONS = list(number_options())


def test_no_number_is_so_close_to_zero_that_its_inverse_is_none() -> None:
    for text in ("1e-300", "-1e-31", "5e-324"):
        with pytest.raises(click.BadParameter, match="too close to 0"):
            Number().convert(text, None, None)
    assert [Number().convert(text, None, None) for text in ("0", "1e-30")] == [0, 1e-30]


def test_many_options_are_tried() -> None:
    assert len(OPTIONS) > 150
    assert len({path for path, _, _ in OPTIONS}) >= 17


@pytest.mark.parametrize(("path", "one", "option"), OPTIONS, ids=lambda v: getattr(v, "name", None))
def test_no_number_is_unbounded(
    path: tuple[str, ...], one: click.Command, option: click.Option
) -> None:
    kind = option.type
    if isinstance(kind, WHOLE):
        assert isinstance(kind, click.IntRange), f"{path}: {option.opts} takes any whole number"
        assert kind.min is not None, f"{path}: {option.opts}"
        assert kind.max is not None, f"{path}: {option.opts}"
    else:
        assert isinstance(kind, Number), f"{path}: {option.opts} takes NaN and infinity"


@pytest.mark.parametrize(("path", "one", "option"), OPTIONS, ids=lambda v: getattr(v, "name", None))
def test_what_is_no_number_is_refused_by_name(
    refused: Callable[..., str], path: tuple[str, ...], one: click.Command, option: click.Option
) -> None:
    words = NEVER + (NO_COUNT if isinstance(option.type, WHOLE) else ())
    needed = [word for p in one.params if p.required for word in given(p)]
    name = option.opts[0]
    joined = name.startswith("--") and option.nargs == 1
    for word in words:
        ours = [f"{name}={word}"] if joined else [name, *[word] * option.nargs]
        line = refused(*path, *needed, *ours)
        assert name in line, (word, line)


def given(needed: click.Parameter) -> list[str]:
    """Something for a parameter that must be given."""
    return [*needed.opts, "."] if isinstance(needed, click.Option) else ["."]
