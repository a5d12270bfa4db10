"""An option that names where results go, refused before the work where nothing could go there."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click


class OutputPath(click.Path):
    """A folder that is there or could be made; or a file in one.

    Args:
        file: whether it names a file.
    """

    def __init__(self, *, file: bool = False) -> None:
        super().__init__(path_type=Path)
        self.file = file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See ``click.ParamType``."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            if self.file and path.is_dir():
                self.fail(f"'{path}' is a folder: name a file", param, ctx)
            for folder in (path.parent if self.file else path, *path.parents):
                if not _is_there(folder):
                    continue
                if not folder.is_dir():
                    self.fail(f"'{folder}' is no folder: choose another output", param, ctx)
                if not os.access(folder, os.W_OK | os.X_OK):
                    self.fail(f"'{folder}' may not be written to: choose another", param, ctx)
                with TemporaryFile(dir=folder):  # root may write to /proc, where nothing can be
                    break
        except OSError as error:
            self.fail(f"'{path}' cannot be made: {error.strerror or error}", param, ctx)
        return path


def _is_there(path: Path) -> bool:
    """Whether something has that name, a link to nowhere too.

    Raises:
        OSError: if nothing could, as with names that are too long.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
