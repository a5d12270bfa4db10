"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trompe.errors import OutputError


def exclusive(path: Path) -> IO[bytes]:
    """A new file, open for writing, that nobody had put there before.

    Where something of that name is, be it a link to another file, nothing is opened. All files
    have the same mode: what the user's umask leaves.

    Raises:
        OSError: if it cannot be made, or something is there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends without an error.

    It lies in the folder of ``path`` (a rename across file systems is not atomic) and keeps its
    suffix (writers choose the format by it). After an error nothing of it is left.

    Args:
        path: the file to write; replaced if it exists.

    Yields:
        The temporary path.

    Raises:
        OutputError: if the file cannot be written; its folder must exist.

    Example:
        >>> with atomic_path("/tmp/numbers.txt") as temporary:
        ...     _ = temporary.write_text("1 2 3")
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    try:
        exclusive(temporary).close()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror or error}: choose another output folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
