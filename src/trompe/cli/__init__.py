"""The command line: the only place where strings become objects.

Nothing here imports torch before a command runs, so that ``trompe --help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click

import trompe
from trompe.cli.animate import animate
from trompe.cli.app import app
from trompe.cli.attack import attack
from trompe.cli.audit import audit
from trompe.cli.certify import certify
from trompe.cli.compare import compare
from trompe.cli.completion import completion
from trompe.cli.console import guarded, set_up_logging
from trompe.cli.curvature import curvature
from trompe.cli.explain import explain
from trompe.cli.fool import fool
from trompe.cli.harden import harden
from trompe.cli.models import models
from trompe.cli.parts import take_plugins
from trompe.cli.patterns import patterns
from trompe.cli.probability import probability
from trompe.cli.report import report
from trompe.cli.reproduce import reproduce
from trompe.cli.robustness import robustness
from trompe.cli.sandwich import sandwich
from trompe.cli.smooth import smooth
from trompe.cli.verify import verify
from trompe.errors import UsageError

__all__ = ["command", "main"]


@click.group("trompe", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(trompe.__version__, prog_name="trompe")
@click.option(
    "--plugin",
    metavar="MODULE",
    expose_value=False,
    help="Import package.module, which registers methods, objectives and more of your own.",
)
@click.option("--debug", is_flag=True, help="Show log messages and the traceback of an error.")
def command(debug: bool) -> None:
    """Can the explanations of a neural network be trusted?

    Start with 'trompe attack': it changes an image imperceptibly, so that the network's answer
    stays and its explanation becomes another one.
    """
    set_up_logging(logging.DEBUG if debug else logging.WARNING)


for _one in (
    attack,
    explain,
    audit,
    robustness,
    report,
    verify,
    reproduce,
    curvature,
    certify,
    sandwich,
    probability,
    smooth,
    harden,
    fool,
    compare,
    animate,
    app,
    patterns,
    models,
    completion,
):
    command.add_command(_one)


#: Folders in one another that an argument may name: making more at once exhausts the stack.
_DEEPEST = 200


def _readable(arguments: list[str]) -> list[str]:
    """The arguments, none of them empty: a variable of a script may not have been set.

    An empty folder for results would silently be the current one.

    Raises:
        UsageError: if one is empty, holds a null character, which no file's name can, or names
            more folders in one another than could be made.
    """
    for before, word in zip(["", *arguments], arguments, strict=False):
        option, equals, value = word.partition("=")
        if "\0" in word:
            shown = word.replace("\0", "\\0")
            raise UsageError(f"'{shown}' holds a null character: leave it out")
        if not word:
            after = f" after '{before}'" if before else ""
            raise UsageError(f"there is an empty argument{after}: give a value, or leave it out")
        if word.count("/") > _DEEPEST:
            raise UsageError(f"an argument names {word.count('/')} folders in one another")
        if option.startswith("--") and equals and not value:
            raise UsageError(f"'{option}' is empty: give a value, or leave it out")
    return arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: without the program's name; by default those of the process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(
        lambda: command.main(
            take_plugins(_readable(given)),
            prog_name="trompe",
            standalone_mode=False,
        )
    )
