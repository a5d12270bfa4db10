"""What every source of images has: numbered images, each with a name, a class and a checksum."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trompe.errors import ImageError
from trompe.types import Preprocessing


@dataclass(frozen=True)
class Image:
    """One image of a source.

    Args:
        name: what it is called; different for each, and harmless to store and to print.
        label: its class, if known.
        content: checksum of its bytes; ``None`` if there are none.
    """

    name: str
    label: int | None
    content: str | None


def readable(name: str) -> str:
    """A file's name with what cannot be stored or printed (control characters) spelt out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


class Source(ABC):
    """Numbered images, read one at a time; nothing of them is held.

    Args:
        spec: how the user named it.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What image ``index`` is called; different for each."""

    def label(self, index: int) -> int | None:
        """Its class, if known."""
        return None

    @abstractmethod
    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """Image ``index`` as a network sees it: pixels 0..1, [channels, size, size] float32.

        Raises:
            ImageError: if it cannot be read.
        """

    def content(self, index: int) -> str | None:
        """The checksum of what image ``index`` is made of; ``None`` if it is not there.

        Raises:
            OSError: if it is there but cannot be read.
        """
        return None

    def know(self, contents: Mapping[int, str | None]) -> None:  # noqa: B027 - most need not
        """Be told what ``content`` was when the run was begun: a file may change meanwhile.

        Args:
            contents: by number.
        """

    def images(self) -> list[Image]:
        """All images, each with the checksum of its content: every one is read.

        Raises:
            ImageError: if one cannot be read for another reason than that it is not there.
        """
        found = []
        for index in range(len(self)):
            name = self.name(index)
            try:
                found.append(Image(name, self.label(index), self.content(index)))
            except OSError as error:
                raise ImageError(f"image '{name}' cannot be read: {error.strerror}") from error
        return found


def fingerprint(images: Sequence[Image]) -> dict[str, Any]:
    """Number of images and checksums of names, labels and contents."""
    names, contents = hashlib.sha256(), hashlib.sha256()
    for one in images:
        names.update(f"{one.name}\0{one.label}\n".encode())
        contents.update(f"{one.content}\n".encode())
    return {
        "count": len(images),
        "names_sha256": names.hexdigest(),
        "content_sha256": contents.hexdigest(),
    }
