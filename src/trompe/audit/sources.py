"""Where an audit's images come from: a folder, a CSV, an npz, a data set of torchvision."""

from __future__ import annotations

import csv
import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trompe.errors import ImageError, UsageError
from trompe.types import Preprocessing
from trompe.zoo.images import SUFFIXES, default_images, fit_pixels, load_image
from trompe.zoo.npz_images import NpzImages


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

    def fingerprint(self) -> dict[str, Any]:
        """Number and checksum of the names and labels, to notice another set of images."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(f"{self.name(index)}\0{self.label(index)}\n".encode())
        return {"count": len(self), "names_sha256": digest.hexdigest()}


class Photos(Source):
    """The three photos that come with scikit-image."""

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        """See ``Source``."""
        return ("cat", "coffee", "rocket")[index]

    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """See ``Source``."""
        return default_images(how=how)[self.name(index)]


class Files(Source):
    """Image files with or without labels."""

    def __init__(self, spec: str, root: Path, names: Sequence[str], labels: Sequence[int | None]):
        super().__init__(spec)
        self._root, self._names, self._labels = root, list(names), list(labels)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """See ``Source``."""
        return self._names[index]

    def label(self, index: int) -> int | None:
        """See ``Source``."""
        return self._labels[index]

    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """See ``Source``."""
        return load_image(self._root / self._names[index], how=how)


class Npz(Source):
    """Images in an npz file; see ``trompe.zoo.npz_images.NpzImages``."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._images = NpzImages(spec)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """See ``Source``."""
        return f"{Path(self.spec).stem}[{index}]"

    def label(self, index: int) -> int | None:
        """See ``Source``."""
        return int(self._images.labels[index])

    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """See ``Source``."""
        return fit_pixels(self._images[index][0], how)


class Torchvision(Source):
    """A data set of torchvision that is on disk already: ``torchvision:NAME:ROOT``."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        _, _, rest = spec.partition(":")
        self._name, _, self._root = rest.partition(":")

    @cached_property
    def _data(self) -> Any:
        from torchvision import datasets

        kind = getattr(datasets, self._name, None)
        if not inspect.isclass(kind):
            raise UsageError(
                f"torchvision has no data set '{self._name}': see torchvision.datasets"
            )
        takes = inspect.signature(kind).parameters
        offered = {"root": self._root or ".", "train": False, "download": False}
        try:
            return kind(**{key: value for key, value in offered.items() if key in takes})
        except Exception as error:  # every data set complains in its own way
            reason = " ".join(str(error).split())
            raise ImageError(f"data set '{self.spec}' cannot be opened ({reason})") from error

    def __len__(self) -> int:
        return len(self._data)

    def name(self, index: int) -> str:
        """See ``Source``."""
        return f"{self._name}[{index}]"

    def label(self, index: int) -> int | None:
        """See ``Source``."""
        known = getattr(self._data, "targets", None)
        if known is None:
            known = getattr(self._data, "labels", getattr(self._data, "_labels", None))
        return None if known is None else int(known[index])

    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """See ``Source``."""
        from torchvision.transforms.functional import pil_to_tensor

        try:
            image = self._data[index][0]
            levels = image if isinstance(image, Tensor) else pil_to_tensor(image.convert("RGB"))
        except Exception as error:  # decoders raise almost anything
            raise ImageError(f"image '{self.name(index)}' cannot be read ({error})") from error
        pixels = levels.float() / 255 if levels.dtype == torch.uint8 else levels.float()
        return fit_pixels(pixels, how)


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [
                {k: v or "" for k, v in row.items() if isinstance(k, str)}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"table '{path}' cannot be read as a CSV file: {error}") from error


def _class(text: str, path: Path) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ImageError(f"table '{path}' has the class '{text}': give numbers from 0") from error


def read_labels(path: Path) -> dict[str, int | None]:
    """File names and classes of a CSV with the columns ``file`` and, if known, ``class``.

    Raises:
        ImageError: if it cannot be read or has no such column.
    """
    rows = _table(path)
    if not rows or "file" not in rows[0]:
        raise ImageError(f"table '{path}' names no image: give the columns file and class")
    return {row["file"]: _class(row.get("class", ""), path) for row in rows if row["file"]}


def read_pairs(path: str, source: Source) -> list[tuple[int, int]]:
    """The pairs of a CSV with the columns ``image`` and ``target``: names in ``source``.

    Raises:
        ImageError: if it cannot be read.
        UsageError: if a name is unknown.
    """
    numbers = {source.name(index): index for index in range(len(source))}
    pairs = []
    for row in _table(Path(path)):
        for column in ("image", "target"):
            if row.get(column) not in numbers:
                raise UsageError(f"'{path}' names the {column} '{row.get(column)}': not there")
        pairs.append((numbers[row["image"]], numbers[row["target"]]))
    return list(dict.fromkeys(pairs))


def _folder(spec: str) -> Source:
    root = Path(spec)

    def images(folder: Path) -> list[Path]:
        found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        return sorted(p for p in found if p.is_file() and not p.name.startswith("."))

    try:
        if (root / "labels.csv").exists():
            table = read_labels(root / "labels.csv")
            return Files(spec, root, list(table), list(table.values()))
        if flat := images(root):
            return Files(spec, root, [p.name for p in flat], [None] * len(flat))
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        entries = [(p, number) for number, folder in enumerate(folders) for p in images(folder)]
    except OSError as error:
        raise ImageError(f"image folder '{spec}' cannot be read: {error.strerror}") from error
    if not entries:
        raise ImageError(f"image folder '{spec}' holds no image: give one with PNG or JPEG files")
    names = [path.relative_to(root).as_posix() for path, _ in entries]
    return Files(spec, root, names, [number for _, number in entries])


def open_source(spec: str) -> Source:
    """The images that ``spec`` names.

    Args:
        spec: ``photos`` for scikit-image's three; a folder of images (with classes in
            ``labels.csv``, or one subfolder per class in the order of their names); a ``.csv`` with
            the columns file and class, paths relative to it; an ``.npz`` with the arrays jpeg,
            offsets and label; ``torchvision:NAME:ROOT`` for a data set of torchvision.

    Raises:
        ImageError: if there is no image.
    """
    if spec == "photos":
        return Photos(spec)
    if spec.startswith("torchvision:"):
        return Torchvision(spec)
    if spec.lower().endswith(".npz"):
        return Npz(spec)
    if spec.lower().endswith(".csv"):
        table = read_labels(Path(spec))
        return Files(spec, Path(spec).parent, list(table), list(table.values()))
    return _folder(spec)
