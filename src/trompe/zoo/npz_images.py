"""Labelled images packed into one ``.npz`` file."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from torch import Tensor

from trompe.errors import ImageError
from trompe.zoo.decoding import decode, naming
from trompe.zoo.images import to_pixels


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
        with naming(self.path, wanted), np.load(path, allow_pickle=False) as arrays:
            self._jpeg: np.ndarray[Any, Any] = arrays["jpeg"]
            self._offsets: list[int] = arrays["offsets"].tolist()
            self.labels: list[int] = arrays["label"].tolist()
        ordered = all(a < b for a, b in zip(self._offsets, self._offsets[1:], strict=False))
        inside = self._offsets[:1] == [0] and self._offsets[-1] <= self._jpeg.size
        if not (ordered and inside and len(self._offsets) == len(self.labels) + 1):
            raise ImageError(
                f"image '{self.path}' is broken, its offsets do not fit: give {wanted}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image ``index`` as pixels 0..1 [3, H, W] float32, and its label.

        Raises:
            IndexError: if there is no such image.
            ImageError: if its bytes are broken.
        """
        label = self.labels[index]
        index %= len(self)
        start, end = self._offsets[index : index + 2]
        stream = io.BytesIO(self._jpeg[start:end].tobytes())
        return to_pixels(decode(stream, f"{self.path}[{index}]", matte="white")), label
