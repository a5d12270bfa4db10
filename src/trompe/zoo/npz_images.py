"""Labelled images packed into one ``.npz`` file."""

from __future__ import annotations

import io
import os
import zipfile
from typing import Any

import numpy as np
from torch import Tensor

from trompe.errors import ImageError
from trompe.ordinary import is_ordinary
from trompe.zoo.decoding import decode, naming
from trompe.zoo.images import to_pixels

#: Packed arrays may have so many bytes in all: a small file can expand to more than the memory.
MAX_EXPANDED = 8 << 30
#: Images that are compressed already hardly expand; what is small may.
MAX_RATIO, SMALL = 50, 64 << 20
#: Bytes of the list of contents: three arrays need some hundred, and reading a long one takes long.
MAX_CONTENTS = 1 << 20
_MAX_HEADER = 10_000
_END, _END_BYTES = b"PK\5\6", 22


def _check_contents(path: str | os.PathLike[str], name: str) -> None:
    """Refuse a list of contents that is too long, before it is read."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - 0xFFFF))
        tail = file.read()
    at = tail.rfind(_END)
    if at >= 0 and len(tail) - at >= _END_BYTES:
        listed = int.from_bytes(tail[at + 12 : at + 16], "little")
        if listed > MAX_CONTENTS:
            raise ImageError(
                f"image '{name}' has a list of contents of {listed} bytes: give an npz file with "
                "three arrays"
            )


def _check_size(packed: zipfile.ZipFile, name: str) -> None:
    """Refuse, by the list of contents alone, what should not be expanded."""
    total = sum(entry.file_size for entry in packed.infolist())
    if total > MAX_EXPANDED:
        raise ImageError(
            f"image '{name}' expands to {total} bytes: give at most {MAX_EXPANDED} in one file"
        )
    held = sum(entry.compress_size for entry in packed.infolist())
    if total > SMALL and total > MAX_RATIO * held:
        raise ImageError(
            f"image '{name}' expands from {held} to {total} bytes, as no images do: give the "
            "images compressed and the archive not"
        )


def _array(packed: zipfile.ZipFile, key: str) -> np.ndarray[Any, Any]:
    """One array, whose header must not ask for more than is there."""
    entry = packed.getinfo(f"{key}.npy")
    with packed.open(entry) as stream:
        content = stream.read(entry.file_size + 1)
    memory = io.BytesIO(content)
    return np.lib.format.read_array(memory, allow_pickle=False, max_header_size=_MAX_HEADER)


def _whole(labels: np.ndarray[Any, Any], name: str) -> list[int]:
    """Labels as integers.

    Raises:
        ImageError: if one is no whole number from 0 to 2**31 - 1.
    """
    numbers = labels.reshape(-1)
    fine = numbers.dtype.kind in "iu" or (
        numbers.dtype.kind == "f" and bool((np.isfinite(numbers) & (numbers % 1 == 0)).all())
    )
    if not fine or (numbers.size and not 0 <= numbers.min() <= numbers.max() < 2**31):
        raise ImageError(f"image '{name}' has labels that are no class numbers from 0")
    return [int(number) for number in numbers]


def _fit(jpeg: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any], count: int) -> bool:
    """Whether the offsets say where each of so many files begins, and where the last one ends."""
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1 or offsets.dtype.kind not in "iu":
        return False
    if offsets.shape != (count + 1,):
        return False
    ordered = bool((offsets[:-1] < offsets[1:]).all())
    return ordered and int(offsets[0]) == 0 and int(offsets[-1]) <= jpeg.size


class NpzImages:
    """Labelled images in one ``.npz`` file, decoded one at a time when asked for.

    The file holds ``jpeg`` (uint8, the JPEG files end to end), ``offsets`` (where each begins,
    and the end) and ``label``.

    Args:
        path: of the file.

    Raises:
        ImageError: if the file is missing, broken or holds other arrays.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        wanted = "an npz file with the arrays jpeg, offsets and label"
        with naming(self.path, wanted):
            if os.path.lexists(path) and not is_ordinary(path):
                raise ImageError(f"image '{self.path}' is no ordinary file: give {wanted}")
            _check_contents(path, self.path)
            with zipfile.ZipFile(path) as packed:
                _check_size(packed, self.path)
                self._jpeg: np.ndarray[Any, Any] = _array(packed, "jpeg")
                offsets, label = _array(packed, "offsets"), _array(packed, "label")
                if not _fit(self._jpeg, offsets, label.size):
                    raise ImageError(
                        f"image '{self.path}' is broken, its offsets do not fit: give {wanted}"
                    )
                self.labels: list[int] = _whole(label, self.path)
        if not self.labels:
            raise ImageError(f"image '{self.path}' holds no image: give {wanted}")
        self._offsets: list[int] = offsets.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def packed(self, index: int) -> bytes:
        """Image ``index`` as it is in the file: a JPEG."""
        index %= len(self)
        start, end = self._offsets[index : index + 2]
        return bytes(self._jpeg[start:end].tobytes())

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image ``index`` as pixels 0..1 [3, H, W] float32, and its label.

        Raises:
            IndexError: if there is no such image.
            ImageError: if its bytes are broken.
        """
        label = self.labels[index]
        stream = io.BytesIO(self.packed(index))
        return to_pixels(decode(stream, f"{self.path}[{index}]", matte="white")), label
