"""Decoding image files of any usual kind; whatever is wrong with one becomes one clear line."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from trompe.errors import ImageError
from trompe.ordinary import read_ordinary

#: Images with more pixels are refused before they are decoded: a small file can unpack to more
#: than the memory holds. The number is Pillow's own, for which it merely warns.
MAX_PIXELS = 89_478_485

#: The formats that are read, by Pillow's names. It knows others, some of which start programs
#: (EPS), fetch or are hardly tested; and it goes by the content, whatever the file is called.
#: A JPEG with a preview behind it (MPO) is opened as a JPEG.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_FEWER_BITS = (8, 10, 12)
log = logging.getLogger("trompe")


@contextmanager
def naming(name: str, wanted: str = "a PNG or JPEG file") -> Iterator[None]:
    """Turn whatever goes wrong with a file into one line that names it, and warnings off."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, MemoryError):  # the second is not the image's fault
        raise
    except FileNotFoundError as error:
        raise ImageError(f"image '{name}' does not exist: check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"image '{name}' is a folder: name one image file") from error
    except PermissionError as error:
        raise ImageError(f"image '{name}' may not be read: check its permissions") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"image '{name}' is too large: give at most {MAX_PIXELS} pixels"
        ) from error
    except Exception as error:  # a broken file makes Pillow's decoders raise almost anything
        what = "broken or of an unknown kind"
        if "truncated" in str(error).lower():
            what = "truncated"
        raise ImageError(f"image '{name}' is {what}: give {wanted}") from error


def _check(image: Image.Image, name: str) -> None:
    """Refuse, by the header alone, what should not be decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"image '{name}' is too large, {image.width} x {image.height}: give at most "
            f"{MAX_PIXELS} pixels"
        )
    # MPO is what many cameras write: an ordinary JPEG, followed by a preview or a depth map.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"image '{name}' has {frames} frames: give a still image")


def _gray_levels(image: Image.Image, name: str) -> Image.Image:
    """An image of more than 8 bits per pixel as mode F, levels 0..1.

    Files of 16 bits often hold data of fewer (12 in X-rays and microscopy), which would be nearly
    black: levels that all fit into 8, 10 or 12 bits are read as those, and a warning says so.
    """
    levels = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        bits = next((bits for bits in _FEWER_BITS if 0 < levels.max() < 2**bits), 16)
        if bits < 16:
            log.warning(
                "image '%s' has 16 bits and no level above %d: read as %d-bit data, white is %d",
                name,
                levels.max(),
                bits,
                2**bits - 1,
            )
        levels /= 2**bits - 1
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise ImageError(
            f"image '{name}' has levels outside 0..{'1' if image.mode == 'F' else '65535'}: "
            "save it with 8 or 16 bits per channel"
        )
    return Image.fromarray(levels)


def _stream(source: str | os.PathLike[str] | IO[bytes]) -> IO[bytes]:
    """What is to be decoded, in memory: nothing but an ordinary file of a bounded size."""
    return BytesIO(read_ordinary(source)) if isinstance(source, str | os.PathLike) else source


def decode(source: str | os.PathLike[str] | IO[bytes], name: str, *, matte: str) -> Image.Image:
    """Decode one still image, upright.

    Colour profiles are ignored, as torchvision does.

    Args:
        source: a path or a binary stream.
        name: what to call it in messages.
        matte: the colour that shows through transparent pixels.

    Returns:
        A Pillow image of mode RGB, or of mode F with levels 0..1 if it has more than 8 bits.

    Raises:
        ImageError: if it is missing, broken, animated or too large.
    """
    with naming(name), Image.open(_stream(source), formats=FORMATS) as opened:
        _check(opened, name)
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode == "F" or image.mode.startswith("I"):
            return _gray_levels(image, name)
        if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, matte), image)
        return image.convert("RGB")
