"""Where an audit's images come from: a folder, a CSV, an npz, a data set of torchvision."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trompe.audit.image_tables import read_labels
from trompe.audit.source import Source, readable
from trompe.errors import ImageError, UsageError
from trompe.ordinary import read_ordinary
from trompe.types import Preprocessing
from trompe.zoo.images import default_images, fit_pixels, folders_in, images_in, load_image
from trompe.zoo.npz_images import NpzImages

#: Stands for the three photos that come with scikit-image.
PHOTOS = "skimage-photos"


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

    def content(self, index: int) -> str | None:
        """See ``Source``."""
        pixels = default_images(64)[self.name(index)]
        return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


class Files(Source):
    """Image files with or without labels."""

    def __init__(self, spec: str, root: Path, names: Sequence[str], labels: Sequence[int | None]):
        super().__init__(spec)
        self._root, self._names, self._labels = root, list(names), list(labels)
        self._known: dict[int, str | None] = {}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """See ``Source``."""
        return readable(self._names[index])

    def label(self, index: int) -> int | None:
        """See ``Source``."""
        return self._labels[index]

    def pixels(self, index: int, how: Preprocessing) -> Tensor:
        """See ``Source``."""
        path = self._root / self._names[index]
        try:
            data = read_ordinary(path)
        except OSError as error:
            if self._known.get(index) is not None:
                raise  # it was there: a fault that may pass
            missing = isinstance(error, FileNotFoundError)
            why = "does not exist" if missing else f"cannot be read ({error.strerror})"
            raise ImageError(f"image '{readable(str(path))}' {why}") from error
        checksum = hashlib.sha256(data).hexdigest()
        if self._known.setdefault(index, checksum) != checksum:
            raise ImageError(f"image '{readable(str(path))}' has changed since the run was begun")
        return load_image(path, how=how, data=data)

    def content(self, index: int) -> str | None:
        """See ``Source``."""
        try:
            data = read_ordinary(self._root / self._names[index])
            self._known[index] = hashlib.sha256(data).hexdigest()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ImageError, ValueError):
            self._known[index] = None
        return self._known[index]

    def know(self, contents: Mapping[int, str | None]) -> None:
        """See ``Source``."""
        self._known.update(contents)


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

    def content(self, index: int) -> str | None:
        """See ``Source``."""
        return hashlib.sha256(self._images.packed(index)).hexdigest()


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

    def content(self, index: int) -> str | None:
        """See ``Source``."""
        files = getattr(self._data, "samples", None) or getattr(self._data, "_image_files", None)
        if files is not None:
            path = files[index][0] if isinstance(files[index], tuple) else files[index]
            return hashlib.sha256(read_ordinary(path)).hexdigest()
        data = getattr(self._data, "data", None)
        if data is None:
            return None
        return hashlib.sha256(torch.as_tensor(data[index]).numpy().tobytes()).hexdigest()


def _folder(spec: str) -> Source:
    root = Path(spec)
    try:
        if (root / "labels.csv").exists():
            table = read_labels(root / "labels.csv")
            return Files(spec, root, list(table), list(table.values()))
        if flat := images_in(root):
            return Files(spec, root, [p.name for p in flat], [None] * len(flat))
        folders = enumerate(folders_in(root))
        entries = [(path, number) for number, folder in folders for path in images_in(folder)]
    except OSError as error:
        builtin = f"; scikit-image's three photos are '{PHOTOS}'" if spec == "photos" else ""
        raise ImageError(
            f"image folder '{spec}' cannot be read: {error.strerror}{builtin}"
        ) from error
    if not entries:
        raise ImageError(f"image folder '{spec}' holds no image: give one with PNG or JPEG files")
    names = [path.relative_to(root).as_posix() for path, _ in entries]
    return Files(spec, root, names, [number for _, number in entries])


def open_source(spec: str) -> Source:
    """The images that ``spec`` names.

    Args:
        spec: ``skimage-photos`` for scikit-image's three (refused where a file or folder is called
            so, too); a folder of images (with classes in
            ``labels.csv``, or one subfolder per class in the order of their names); a ``.csv`` with
            the columns file and class, paths relative to it; an ``.npz`` with the arrays jpeg,
            offsets and label; ``torchvision:NAME:ROOT`` for a data set of torchvision.

    Raises:
        ImageError: if there is no image.
        UsageError: if ``skimage-photos`` could also be a folder.
    """
    if spec == PHOTOS:
        if os.path.lexists(PHOTOS):
            raise UsageError(
                f"'{PHOTOS}' means scikit-image's three photos, and here something is called so, "
                f"too: say './{PHOTOS}' for that, or rename it"
            )
        return Photos(PHOTOS)
    if spec.startswith("torchvision:"):
        return Torchvision(spec)
    if spec.lower().endswith(".npz"):
        return Npz(spec)
    if spec.lower().endswith(".csv"):
        table = read_labels(Path(spec))
        return Files(spec, Path(spec).parent, list(table), list(table.values()))
    return _folder(spec)
