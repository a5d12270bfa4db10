"""Reading ordinary files only: a pipe waits for ever, a device never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trompe.errors import ImageError, TrompeError

#: No image and no table is larger, in bytes.
MAX_BYTES = 1 << 29


def is_ordinary(path: str | os.PathLike[str]) -> bool:
    """Whether there is an ordinary file, no pipe, device or folder; links are followed."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def refuse_odd(path: str | os.PathLike[str], error: type[TrompeError], what: str) -> None:
    """Refuse a pipe or device, which would be waited for, or read, without end.

    A missing file or a folder passes: whoever opens it has better words for that.

    Args:
        path: of what is to be opened.
        error: raised.
        what: it is, in the message.

    Raises:
        TrompeError: the ``error``, if there is something that is neither a file nor a folder.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise error(f"{what} is no ordinary file: name one")


def read_ordinary(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """All bytes of an ordinary file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        ImageError: if it is no ordinary file, or larger.
        OSError: if it cannot be read.
    """
    name = os.fspath(path)
    # Without waiting: opening a pipe would, for somebody who writes into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if Path(path).is_dir():
        raise IsADirectoryError(21, "is a folder", name)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"image '{name}' is no ordinary file: name one")
        if found.st_size > most:
            raise ImageError(
                f"image '{name}' is too large, {found.st_size} bytes: give at most {most}"
            )
        return file.read(most + 1)
