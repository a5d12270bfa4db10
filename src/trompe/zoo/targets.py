"""Target maps that come from no network: a rendered text, or a map in a file."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trompe.errors import ImageError, TargetError
from trompe.ordinary import refuse_odd
from trompe.zoo.decoding import decode

if TYPE_CHECKING:
    from PIL import Image, ImageFont

_LOG = logging.getLogger(__name__)

#: Text is drawn this many times larger than asked for, then averaged: smooth edges.
_OVERSAMPLING = 4
#: Letters below this height, in pixels of the map, cannot be read.
_SMALLEST_LETTER = 5
#: The share of the width and height that the text may take.
_FILL = 0.92


def _normalised(values: Tensor, name: str) -> Tensor:
    """Magnitudes [H, W] as a map that sums to 1, float32."""
    if not bool(values.isfinite().all()):
        raise TargetError(f"target map {name} holds NaN or infinity: give finite numbers")
    values = values.double().abs()
    if not bool(values.any()):
        raise TargetError(f"target map {name} is all zero: mark at least one pixel as relevant")
    values = values / values.max()  # so that the total of huge entries stays finite
    return (values / values.sum()).float()


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> str | None:
    """The text broken into lines of at most ``width``; None if a word alone is wider."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if font.getlength(word) > width:
                return None
            longer = f"{line} {word}".strip()
            if font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _drawing(text: str, points: int, width: int, height: int) -> Image.Image | None:
    """The text in white on black, centred; None if it does not fit."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", points)
    wrapped = _wrapped(text, font, _FILL * width)
    if wrapped is None:
        return None
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    spacing = points // 4
    left, top, right, bottom = pen.multiline_textbbox(
        (0, 0), wrapped, font=font, align="center", spacing=spacing
    )
    if right - left > _FILL * width or bottom - top > _FILL * height:
        return None
    corner = ((width - left - right) / 2, (height - top - bottom) / 2)
    pen.multiline_text(corner, wrapped, fill=255, font=font, align="center", spacing=spacing)
    return image


def text_map(text: str, height: int, width: int) -> Tensor:
    """A text as a target map, like the one of the paper's figure 2.

    The words are wrapped and the letters made as large as the picture allows.

    Args:
        text: what the explanation shall read; line breaks are kept.
        height: of the map, in pixels.
        width: of the map, in pixels.

    Returns:
        [height, width], float32, not negative, summing to 1.

    Raises:
        TargetError: if the text is empty, or too long to be read in so small a picture.

    Example:
        >>> text_map("this explanation was manipulated", 64, 64).shape
        torch.Size([64, 64])
    """
    from PIL import Image

    text = text.strip()
    if not text:
        raise TargetError("the target text is empty: give at least one letter")
    best = None
    low, high = _SMALLEST_LETTER * _OVERSAMPLING, 2 * _OVERSAMPLING * max(height, width)
    while low <= high:  # bisect the size of the letters
        middle = (low + high) // 2
        drawing = _drawing(text, middle, _OVERSAMPLING * width, _OVERSAMPLING * height)
        if drawing is None:
            high = middle - 1
        else:
            best, low = drawing, middle + 1
    short = text if len(text) <= 40 else f"{text[:40]}..."
    if best is None:
        raise TargetError(
            f"the target text {short!r} is too long to be read in {width} x {height} pixels: "
            "shorten it"
        )
    drawn = best.resize((width, height), Image.Resampling.BOX)
    return _normalised(torch.from_numpy(np.array(drawn)), f"of the text {short!r}")


def _array(path: Path, name: str) -> Tensor:
    """The numbers [H, W] in a ``.npy`` file, float64."""
    refuse_odd(path, TargetError, f"target map '{name}'")
    try:
        array = np.load(path, allow_pickle=False)  # a pickle could run code
    except FileNotFoundError as error:
        raise TargetError(f"target map '{name}' does not exist: check the path") from error
    except Exception as error:  # broken headers raise many things
        raise TargetError(
            f"target map '{name}' cannot be read: give a .npy file of plain numbers"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise TargetError(f"target map '{name}' holds no real numbers: give an array of floats")
    if array.ndim != 2 or array.size == 0:
        raise TargetError(
            f"target map '{name}' has the shape {array.shape}: give two dimensions, height and "
            "width"
        )
    return torch.from_numpy(array.astype(np.float64))


def _luminance(source: Path | IO[bytes], name: str) -> Tensor:
    """The luminance 0..1 [H, W] of a picture; transparent pixels are black, not relevant."""
    try:
        image = decode(source, name, matte="black")
    except ImageError as error:
        raise TargetError(f"target map: {error}") from error
    if image.mode == "F":
        return torch.from_numpy(np.array(image))
    return torch.from_numpy(np.array(image.convert("L"))).div(255)


def map_from_file(path: str | os.PathLike[str], height: int, width: int) -> Tensor:
    """Read a target map: the array of a ``.npy`` file, or the luminance of a ``.png``.

    Args:
        path: of the file; its map may have another size, then it is resized (bilinear,
            antialiased) and a notice is logged.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        The absolute values, [height, width], float32, summing to 1.

    Raises:
        TargetError: if the file is missing, broken or of another kind, or its map has not two
            dimensions, is all zero or not finite.
    """
    name = os.fspath(path)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".png"):
        raise TargetError(f"target map '{name}' is neither .npy nor .png: convert it to one")
    read = _array(path, name) if suffix == ".npy" else _luminance(path, name)
    values = _normalised(read, f"'{name}'")
    if values.shape != (height, width):
        _LOG.warning(
            "target map '%s' is resized from %d x %d to %d x %d pixels (width x height)",
            name,
            values.shape[1],
            values.shape[0],
            width,
            height,
        )
        values = _resized(values, name, height, width)
    return values


def map_from_drawing(data: bytes, height: int, width: int) -> Tensor:
    """What was drawn in light colours on black, or on nothing, as a target map.

    Args:
        data: the bytes of a picture, such as a PNG.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        [height, width], float32, not negative, summing to 1.

    Raises:
        TargetError: if the picture is broken or too large, or nothing is drawn.
    """
    name = "the drawing"
    values = _luminance(io.BytesIO(data), name)
    if not bool(values.any()):
        raise TargetError("nothing is drawn yet: draw at least one line")
    return _resized(values, name, height, width)


def _resized(values: Tensor, name: str, height: int, width: int) -> Tensor:
    """Magnitudes [H, W] as a map of another size that sums to 1."""
    resized = torch.nn.functional.interpolate(
        values[None, None], (height, width), mode="bilinear", antialias=True
    )
    return _normalised(resized[0, 0], f"'{name}'")
