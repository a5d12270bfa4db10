"""Files that must stay where they are."""

from __future__ import annotations

import os
from pathlib import Path

from trompe.errors import StoreError


class Place:
    """A file that other processes find under the same name as long as nobody moves its folder.

    Args:
        path: of a file that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._known = self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def check(self) -> None:
        """Raise a StoreError if the file is no longer there, or another one is."""
        if self._now() != self._known:
            raise StoreError(
                f"'{self.path.parent}' was moved or deleted while it was worked on: nothing more "
                "is written; move it back and start the same command again"
            )
