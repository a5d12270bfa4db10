"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trompe.errors import OutputError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks; what is left stays there
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = r"\.[0-9a-f]{16}\."


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


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk, not in memory alone.

    Raises:
        OSError: if the disk says that it cannot.
    """
    if os.name == "nt":  # folders cannot be opened there, and need not be
        return
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(file: IO[bytes]) -> bool:
    """Whether nobody else holds a file; it is held from now on, until it is closed."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or on a file system without locks
        return False
    return True


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of a file that they were writing.

    Whoever writes holds its temporary file: those that nobody holds were abandoned.

    Args:
        path: the file itself; temporary ones lie beside it.
    """
    name = re.compile(_TEMPORARY + re.escape(path.name))
    with contextlib.suppress(OSError):
        for other in list(path.parent.iterdir()):
            if name.fullmatch(other.name) and not other.is_symlink() and other.is_file():
                with contextlib.suppress(OSError), other.open("rb") as file:
                    if _lock(file):
                        other.unlink()


@contextmanager
def _held(path: Path) -> Iterator[Path]:
    """A new temporary file for ``path``, which others see to be in use."""
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
        with exclusive(temporary) as file:
            if fcntl is None:  # where there are no locks an open file cannot be renamed
                file.close()
            elif _lock(file) and not temporary.exists():  # taken for abandoned just before
                continue
            yield temporary
            return


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends without an error.

    It lies in the folder of ``path`` (a rename across file systems is not atomic) and keeps its
    suffix (writers choose the format by it). It is on the disk before it gets its name. After an
    error nothing of it is left; what a killed process left is removed by the next that writes the
    same file.

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
    temporary = None
    try:
        remove_abandoned(path)
        with _held(path) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror or error}: choose another output folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
