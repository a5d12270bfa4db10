"""Reading and writing images: files of any usual kind in, pixels 0..1 out."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trompe.atomic import atomic_path
from trompe.errors import ImageError, UsageError

#: Images with more pixels are refused before they are decoded: a small file can unpack to more
#: than the memory holds. The number is Pillow's own, for which it merely warns.
MAX_PIXELS = 89_478_485
#: Images with a shorter side are refused: nothing can be recognised in them.
MIN_SIDE = 8
#: The suffixes that ``list_images`` looks for.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@contextmanager
def _naming(name: str, wanted: str = "a PNG or JPEG file") -> Iterator[None]:
    """Turn whatever goes wrong with a file into one line that names it, and warnings off."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
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
    """An image of more than 8 bits per pixel as mode F, levels 0..1."""
    levels = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        levels /= 65535
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise ImageError(
            f"image '{name}' has levels outside 0..{'1' if image.mode == 'F' else '65535'}: "
            "save it with 8 or 16 bits per channel"
        )
    return Image.fromarray(levels)


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
    with _naming(name), Image.open(source) as opened:
        _check(opened, name)
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode == "F" or image.mode.startswith("I"):
            return _gray_levels(image, name)
        if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, matte), image)
        return image.convert("RGB")


def _to_tensor(image: Image.Image) -> Tensor:
    """A decoded image as pixels 0..1, [3, H, W] float32."""
    values = torch.from_numpy(np.array(image))
    if image.mode == "F":
        return values.clamp(0, 1).expand(3, -1, -1).contiguous()
    return values.permute(2, 0, 1).float().div(255).contiguous()


def _fit(image: Image.Image, name: str, size: int, resize: int) -> Tensor:
    """Shorter side to ``resize``, then the central square: torchvision's Resize and CenterCrop."""
    short, long = sorted(image.size)
    if short < MIN_SIDE:
        raise ImageError(
            f"image '{name}' is too small, {image.width} x {image.height}: give at least "
            f"{MIN_SIDE} pixels per side"
        )
    longer = int(resize * long / short)
    if longer * resize > MAX_PIXELS:
        raise ImageError(
            f"image '{name}' is too elongated, {image.width} x {image.height}: crop it first"
        )
    width, height = (longer, resize) if image.width > image.height else (resize, longer)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _to_tensor(image.crop((left, top, left + size, top + size)))


def _check_sizes(size: int, resize: int) -> None:
    if not 1 <= size <= resize:
        raise UsageError(
            f"cannot crop {size} pixels from a shorter side of {resize}: choose size <= resize"
        )


def load_image(path: str | os.PathLike[str], *, size: int = 224, resize: int = 256) -> Tensor:
    """Read an image file as a network sees it.

    The shorter side is resized to ``resize`` pixels (bilinear, antialiased) and the central
    square of ``size`` pixels cut out, exactly as torchvision's transforms do. Grey, palette,
    CMYK and 16-bit images are converted, transparent ones laid on white, EXIF rotations applied.
    To read a manipulated PNG back unchanged choose ``resize`` equal to ``size``.

    Args:
        path: of a still image in any format that Pillow reads.
        size: height and width of the result, in pixels.
        resize: the shorter side before the crop, in pixels, at least ``size``.

    Returns:
        Pixels 0..1, [3, size, size], float32.

    Raises:
        ImageError: if the file is missing, a folder, broken, animated, too small or too large.
        UsageError: if ``size`` is not within 1..``resize``.
    """
    _check_sizes(size, resize)
    name = os.fspath(path)
    return _fit(decode(path, name, matte="white"), name, size, resize)


def read_pixels(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file in its own size: pixels 0..1, [3, H, W], float32.

    Raises:
        ImageError: if the file is missing, a folder, broken, animated or too large.
    """
    return _to_tensor(decode(path, os.fspath(path), matte="white"))


def default_images(size: int, *, resize: int | None = None) -> dict[str, Tensor]:
    """The three photos that come with scikit-image, no download: a cat, a coffee and a rocket.

    Args:
        size: height and width of the results, in pixels.
        resize: the shorter side before the central crop; by default ``size``.

    Returns:
        Pixels 0..1, [3, size, size], float32, by name.

    Raises:
        UsageError: if ``size`` is not within 1..``resize``.
    """
    from skimage import data

    resize = size if resize is None else resize
    _check_sizes(size, resize)
    photos = {"cat": data.cat, "coffee": data.coffee, "rocket": data.rocket}
    return {
        name: _fit(Image.fromarray(photo()), name, size, resize) for name, photo in photos.items()
    }


def save_png(path: str | os.PathLike[str], pixels: Tensor) -> None:
    """Write pixels as an 8-bit PNG, each rounded to the nearest level, whole or not at all.

    Args:
        path: the file to write; replaced if it exists.
        pixels: [3, H, W], or [1, H, W] for grey, clamped to 0..1.

    Raises:
        UsageError: if the shape does not fit or an entry is not a number.
        OutputError: if the file cannot be written.
    """
    if pixels.dim() != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise UsageError(
            f"cannot save the shape {tuple(pixels.shape)} as a PNG: give [3, H, W] or [1, H, W]"
        )
    if bool(pixels.isnan().any()):
        raise UsageError(f"cannot save '{os.fspath(path)}': its pixels are not numbers")
    levels = pixels.detach().cpu().double().clamp(0, 1).mul(255).round().to(torch.uint8)
    image = Image.fromarray(levels.permute(1, 2, 0).squeeze(2).numpy())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder (not of its subfolders), by name.

    Raises:
        ImageError: if the folder does not exist or holds no image.
    """
    name = os.fspath(folder)
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise ImageError(f"image folder '{name}' cannot be read: {error.strerror}") from error
    found = [
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not found:
        raise ImageError(f"image folder '{name}' holds no image: give one with PNG or JPEG files")
    return found


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
        with _naming(self.path, wanted), np.load(path, allow_pickle=False) as arrays:
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
        return _to_tensor(decode(stream, f"{self.path}[{index}]", matte="white")), label
