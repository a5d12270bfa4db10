"""Arrays in safetensors files that are named by their own checksum."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trompe.errors import OutputError, StoreError


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
        """Where the array file of this checksum lies."""
        return self.folder / checksum[:2] / f"{checksum}.safetensors"

    def put(self, tensors: Mapping[str, Tensor]) -> str:
        """Write tensors, and return the checksum by which they are found again.

        Raises:
            OutputError: if they cannot be written, as when the disk is full.
            StoreError: if a file of that name is there with another content.
        """
        content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        checksum = hashlib.sha256(content).hexdigest()
        path = self.path(checksum)
        temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            if path.exists():
                self._check(path, checksum, path.read_bytes())
                return checksum
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise OutputError(
                f"cannot write '{path}': {error.strerror or error}: make room and start the same "
                "command again, it goes on where it was"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return checksum

    def get(self, checksum: str) -> dict[str, Tensor]:
        """The tensors that were written under this checksum.

        Raises:
            StoreError: if the file is missing or damaged.
        """
        path = self.path(checksum)
        try:
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
