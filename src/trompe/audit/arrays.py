"""Arrays in safetensors files that are named by their own checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trompe.atomic import exclusive, sync_folder
from trompe.errors import OutputError, StoreError
from trompe.ordinary import is_ordinary


def content_of(tensors: Mapping[str, Tensor]) -> tuple[str, bytes]:
    """What is written of some tensors, and the checksum by which that is found again."""
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    return hashlib.sha256(content).hexdigest(), content


class ArrayStore:
    """A folder of arrays; the same content is kept once, whoever writes it.

    A file is written under another name, flushed to the disk and then renamed: under its own name
    it is always whole. It is never replaced.

    Args:
        folder: where the files lie; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, checksum: str) -> Path:
        """Where the array file of this checksum lies.

        Raises:
            StoreError: if it is no checksum: a foreign run could name any file of this machine.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", checksum):
            raise StoreError(f"'{checksum[:80]}' is no name of an array: restore the run's store")
        return self.folder / checksum[:2] / f"{checksum}.safetensors"

    def put(self, tensors: Mapping[str, Tensor]) -> str:
        """Write tensors, and return the checksum by which they are found again.

        Raises:
            OutputError: if they cannot be written, as when the disk is full.
            StoreError: if a file of that name is there with another content.
        """
        checksum, content = content_of(tensors)
        path = self.path(checksum)
        temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            if path.exists():
                self._check(path, checksum, path.read_bytes())
                with path.open("rb") as file:  # whoever wrote it may have been killed just then
                    os.fsync(file.fileno())
            else:
                # Not its parents: where the run's folder was moved, nothing is to be made anew.
                self.folder.mkdir(exist_ok=True)
                path.parent.mkdir(exist_ok=True)
                with exclusive(temporary) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            # A row may refer to the file only once its name is on the disk as well.
            for folder in (path.parent, self.folder, self.folder.parent):
                sync_folder(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write '{path}': {error.strerror or error}: make room and start the same "
                "command again, it goes on where it was"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return checksum

    def get(self, checksum: str) -> dict[str, Tensor]:
        """The tensors that were written under this checksum.

        Raises:
            StoreError: if the file is missing or damaged.
        """
        path = self.path(checksum)
        try:
            if path.exists() and not is_ordinary(path):
                raise StoreError(f"array file '{path}' is no ordinary file: restore it from a copy")
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"array file '{path}' cannot be read: {error.strerror}: restore it from a copy"
            ) from error
        self._check(path, checksum, content)
        try:
            tensors: dict[str, Tensor] = load(content)
        except SafetensorError as error:
            raise StoreError(f"array file '{path}' is no safetensors file: {error}") from error
        return tensors

    @staticmethod
    def _check(path: Path, checksum: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != checksum:
            raise StoreError(
                f"array file '{path}' is damaged, its checksum does not fit: it was left as it is; "
                "restore it from a copy"
            )
