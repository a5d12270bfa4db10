"""What the user sees besides results: one-line errors, notices and progress, all on stderr."""

from __future__ import annotations

import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from trompe.errors import TrompeError
from trompe.said import known

if TYPE_CHECKING:
    from trompe.types import Progress

log = logging.getLogger("trompe")

BAD_INPUT, UNEXPECTED, FAILED, INTERRUPTED = 2, 1, 3, 130
"""Exit codes: something the user can put right; a bug; some of the work failed; Ctrl-C."""


_LONGEST = 1200
"""Letters of an error or a notice; of a longer one the middle is left out."""


class _Notices(logging.Handler):
    """Writes each record as one line to stderr, without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(f"trompe: {_one_line(record.getMessage())}", file=sys.stderr)


def set_up_logging(level: int) -> None:
    """Show the library's log from ``level`` on; other packages' warnings only for debugging."""
    log.handlers = [_Notices()]
    log.setLevel(level)
    if level > logging.DEBUG:
        warnings.simplefilter("ignore")


def be_quiet() -> None:
    """Show errors only, except for debugging."""
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.ERROR)


def printable(text: str) -> str:
    """A text without control characters but line breaks: a file's name could hold any.

    What a terminal would obey (escape sequences, a return to the start of the line, letters that
    turn the direction) is spelt out.
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}"
        for letter in text
    )


def say(text: str) -> None:
    """Write a text to standard output, whatever names of files are in it."""
    click.echo(printable(text))


def _one_line(text: str) -> str:
    line = printable(" ".join(text.split()))
    if len(line) > _LONGEST:  # a name of thousands of letters hides what is said about it
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return line


def _out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _by_click(error: SystemExit) -> bool:
    """Whether click itself ended the program, and not what it called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__")).startswith("click.")


def guarded(work: Callable[[], Any]) -> int:
    """Do ``work``; whatever goes wrong becomes one line on stderr and an exit code.

    Args:
        work: returns an exit code, or None for success.
    """
    code = BAD_INPUT
    try:
        return int(work() or 0)
    except (KeyboardInterrupt, click.Abort):
        message, code = "interrupted", INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        message = error.format_message()
    except TrompeError as error:
        if log.isEnabledFor(logging.DEBUG):
            raise
        message = str(error)
    except SystemExit as error:
        if _by_click(error):  # the one case: the reader of the output, 'head' say, has enough
            return UNEXPECTED
        message = f"the code of a model ended the program (exit code {error.code})"
    except OSError as error:  # the system's own word about a file or folder is the user's to mend
        if log.isEnabledFor(logging.DEBUG):
            raise
        message = f"{error.strerror or error}: '{error.filename}'"
        if error.filename is None:
            message = f"the system refused to go on: {error.strerror or error}"
    except Exception as error:
        if log.isEnabledFor(logging.DEBUG):
            raise
        if meant := known(error):
            message = meant
        elif isinstance(error, MemoryError) or _out_of_memory(error):
            message = "out of memory: lower --batch-size or --chunk, or choose a smaller --model"
        else:
            message = f"unexpected {type(error).__name__}: {error} ('trompe --debug' shows where)"
            code = UNEXPECTED
    except BaseException as error:  # no code of trompe's, or of its libraries', raises such
        if log.isEnabledFor(logging.DEBUG):
            raise
        message = f"the code of a model ended the program ({type(error).__name__}: {error})"
    click.echo(f"trompe: {_one_line(message)}", err=True)
    return code


@contextmanager
def progress_bar(what: str, *, unit: str, quiet: bool) -> Iterator[Progress | None]:
    """A bar on stderr, moved by calling what is yielded; None if ``quiet``.

    Args:
        what: is going on.
        unit: of the steps counted.
        quiet: show nothing.
    """
    if quiet:
        yield None
        return
    from tqdm import tqdm

    # A log file gets a line now and then, a terminal a bar that moves.
    interval = 0.2 if sys.stderr.isatty() else 10.0
    bars: list[tqdm[Any]] = []
    shown = -interval

    def update(done: int, total: int, numbers: Mapping[str, float]) -> None:
        nonlocal shown
        if bars and done < bars[0].n:  # the next batch has begun
            bars.pop().close()
        if not bars:  # work that fails at once shall leave its error alone on the screen
            options: dict[str, Any] = {"file": sys.stderr, "mininterval": interval, "miniters": 1}
            bars.append(tqdm(desc=what, unit=unit, total=total, **options))
        if done == total or time.monotonic() - shown >= interval:  # a GPU is waited for here
            bars[0].set_postfix({k: f"{v:.3g}" for k, v in numbers.items()}, refresh=False)
            shown = time.monotonic()
        bars[0].update(done - bars[0].n)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()
