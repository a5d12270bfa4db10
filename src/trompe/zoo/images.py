"""Reading and writing images: files of any usual kind in, pixels 0..1 out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trompe.atomic import atomic_path
from trompe.errors import ImageError, UsageError
from trompe.ordinary import read_ordinary
from trompe.types import Preprocessing
from trompe.zoo.decoding import MAX_PIXELS, decode, naming

#: Images with a shorter side are refused: nothing can be recognised in them.
MIN_SIDE = 8
#: The suffixes that ``list_images`` looks for.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def to_pixels(image: Image.Image, channels: int = 3) -> Tensor:
    """A decoded image as pixels 0..1, [1, H, W] or [3, H, W] float32."""
    if channels == 1 and image.mode != "F":
        image = image.convert("L")
    values = torch.from_numpy(np.array(image))
    if image.mode == "F":
        return values.clamp(0, 1).expand(channels, -1, -1).contiguous()
    if channels == 1:
        values = values[:, :, None]
    return values.permute(2, 0, 1).float().div(255).contiguous()


def _check_shape(width: int, height: int, name: str, resize: int) -> None:
    """Refuse what is too small to show anything, or too long to be resized."""
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise ImageError(
            f"image '{name}' is too small, {width} x {height}: give at least {MIN_SIDE} pixels "
            "per side"
        )
    if int(resize * long / short) * resize > MAX_PIXELS:
        raise ImageError(f"image '{name}' is too elongated, {width} x {height}: crop it first")


def _fit(image: Image.Image, name: str, how: Preprocessing) -> Tensor:
    """Shorter side to ``resize``, then the central square: torchvision's Resize and CenterCrop."""
    if how.channels not in (1, 3):
        raise ImageError(
            f"image '{name}' cannot have the {how.channels} channels of the model: give a .npy "
            f"file [{how.channels}, height, width] with values 0..1"
        )
    _check_shape(image.width, image.height, name, how.resize)
    short, long = sorted(image.size)
    longer = int(how.resize * long / short)
    width, height = (longer, how.resize) if image.width > image.height else (how.resize, longer)
    if image.size != (width, height):
        image = image.resize((width, height), _RESAMPLING[how.interpolation])
    left, top = round((width - how.size) / 2), round((height - how.size) / 2)
    crop = image.crop((left, top, left + how.size, top + how.size))
    return to_pixels(crop, how.channels)


def fit_pixels(pixels: Tensor, how: Preprocessing) -> Tensor:
    """Fit pixels that no file holds; those that have the model's size already stay as they are.

    Args:
        pixels: 0..1, [C, H, W] float.
        how: the size they are to have. One channel is repeated where the model takes more, three
            become grey (ITU-R 601) where it takes one.

    Returns:
        Pixels 0..1, [channels, size, size].

    Raises:
        ImageError: if the channels do not fit the model.
    """
    if pixels.shape[0] == 1:
        pixels = pixels.expand(how.channels, -1, -1)
    elif pixels.shape[0] == 3 and how.channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=pixels.dtype)
        pixels = (pixels * weights.view(3, 1, 1)).sum(dim=0, keepdim=True)
    elif pixels.shape[0] != how.channels:
        raise ImageError(
            f"an image has {pixels.shape[0]} channels, the model takes {how.channels}: give images "
            f"[{how.channels}, height, width]"
        )
    if pixels.shape[1:] == (how.size, how.size):
        return pixels.contiguous()
    short = min(pixels.shape[1:])
    shape = [max(how.size, round(side * how.resize / short)) for side in pixels.shape[1:]]
    if tuple(pixels.shape[1:]) != tuple(shape):
        names = {"lanczos": "bicubic", "nearest": "nearest-exact"}  # the nearest to Pillow's
        mode = names.get(how.interpolation, how.interpolation)
        smooth = mode != "nearest-exact"
        resized = torch.nn.functional.interpolate(pixels[None], shape, mode=mode, antialias=smooth)
        pixels = resized[0].clamp(0, 1)
    top, left = ((side - how.size) // 2 for side in shape)
    return pixels[:, top : top + how.size, left : left + how.size].contiguous()


def _load_array(
    path: str | os.PathLike[str], how: Preprocessing, data: bytes | None = None
) -> Tensor:
    """Pixels [channels, size, size] of a ``.npy`` file [C, H, W], 8-bit or 0..1."""
    name = os.fspath(path)
    with naming(name, "a .npy file [channels, height, width], 8-bit or with values 0..1"):
        data = read_ordinary(path) if data is None else data
        values = np.load(io.BytesIO(data), allow_pickle=False)  # a pickle could run code
        numbers = isinstance(values, np.ndarray) and values.dtype.kind in "fu"
    if not numbers or values.ndim != 3 or not (np.isfinite(values).all() and values.min() >= 0):
        raise ImageError(
            f"image '{name}' is no array [channels, height, width] of numbers 0..1 or of 8 bits"
        )
    if values.dtype != np.uint8 and values.max() > 1:
        raise ImageError(
            f"image '{name}' has values above 1: divide them by the largest that there can be"
        )
    _check_shape(values.shape[2], values.shape[1], name, how.resize)
    pixels = torch.from_numpy(values.astype(np.float32))
    return fit_pixels(pixels / 255 if values.dtype == np.uint8 else pixels, how)


def load_image(
    path: str | os.PathLike[str],
    *,
    size: int = 224,
    resize: int = 256,
    how: Preprocessing | None = None,
    data: bytes | None = None,
) -> Tensor:
    """Read an image file as a network sees it.

    The shorter side is resized to ``resize`` pixels (bilinear, antialiased) and the central
    square of ``size`` pixels cut out, exactly as torchvision's transforms do. Grey, palette,
    CMYK and 16-bit images are converted, transparent ones laid on white, EXIF rotations applied.
    To read a manipulated PNG back unchanged choose ``resize`` equal to ``size``.

    Args:
        path: of a still BMP, GIF, JPEG, PNG, PPM, TIFF or WebP image, or of a ``.npy`` file
            [C, H, W] with values 0..1 or of 8 bits, whatever the number of channels.
        size: height and width of the result, in pixels.
        resize: the shorter side before the crop, in pixels, at least ``size``.
        how: all of it as a model wants it (``loaded.preprocessing``), in place of both.
        data: the bytes of the file, if they were read already.

    Returns:
        Pixels 0..1, [channels, size, size], float32; three channels if not said otherwise.

    Raises:
        ImageError: if the file is missing, a folder, broken, animated, too small or too large, or
            its channels do not fit.
        UsageError: if ``size`` is not within 1..``resize``.

    Example:
        >>> load_image("dog.jpg", how=loaded.preprocessing)  # doctest: +SKIP
    """
    how = Preprocessing(size, resize) if how is None else how
    name = os.fspath(path)
    if name.lower().endswith(".npy"):
        return _load_array(path, how, data)
    source = path if data is None else io.BytesIO(data)
    return _fit(decode(source, name, matte="white"), name, how)


def read_pixels(path: str | os.PathLike[str]) -> Tensor:
    """Read an image file in its own size: pixels 0..1, [3, H, W], float32.

    Raises:
        ImageError: if the file is missing, a folder, broken, animated or too large.
    """
    return to_pixels(decode(path, os.fspath(path), matte="white"))


def default_images(
    size: int = 224, *, resize: int | None = None, how: Preprocessing | None = None
) -> dict[str, Tensor]:
    """The three photos that come with scikit-image, no download: a cat, a coffee and a rocket.

    Args:
        size: height and width of the results, in pixels.
        resize: the shorter side before the central crop; by default ``size``.
        how: all of it as a model wants it (``loaded.preprocessing``), in place of both.

    Returns:
        Pixels 0..1, [channels, size, size], float32, by name.

    Raises:
        ImageError: if the model takes neither one nor three channels.
        UsageError: if ``size`` is not within 1..``resize``.
    """
    from skimage import data

    if how is None:
        how = Preprocessing(size, size if resize is None else resize)
    photos = {"cat": data.cat, "coffee": data.coffee, "rocket": data.rocket}
    return {name: _fit(Image.fromarray(photo()), name, how) for name, photo in photos.items()}


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
    """The image files of a folder, by name; if it has none itself, those of its subfolders.

    So a folder with one subfolder per class is a folder of images, too.

    Raises:
        ImageError: if the folder does not exist or holds no image.
    """
    name = os.fspath(folder)
    try:
        found = images_in(Path(folder))
        if not found:
            found = [file for one in folders_in(Path(folder)) for file in images_in(one)]
    except OSError as error:
        raise ImageError(f"image folder '{name}' cannot be read: {error.strerror}") from error
    if not found:
        raise ImageError(f"image folder '{name}' holds no image: give one with PNG or JPEG files")
    return found


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder itself, by name, hidden ones left out."""
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name, hidden ones left out."""
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."]
