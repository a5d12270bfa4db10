"""Tensors as pictures for a page: PNG files as text, nothing on disk."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trompe.report.style import MAP_COLOURS


def photo(pixels: Tensor) -> Image.Image:
    """Pixels 0..1, [C, H, W], as a picture; channels other than three as their mean."""
    pixels = pixels.detach().cpu().float().clamp(0, 1)
    if pixels.shape[0] != 3:
        pixels = pixels.mean(dim=0).expand(3, -1, -1)
    levels = pixels.mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def heat(values: Tensor, brightest: float) -> Image.Image:
    """A heat map [H, W] in the colours of all figures, from 0 to ``brightest``."""
    from matplotlib import colormaps

    shares = values.detach().cpu().float().nan_to_num() / brightest
    colours = colormaps[MAP_COLOURS](shares.clamp(0, 1).numpy())[..., :3]
    return Image.fromarray(np.round(255 * colours).astype(np.uint8))


def change(pixels: Tensor, original: Tensor, factor: int) -> Image.Image:
    """The change of an image, ``factor`` times, around grey."""
    return photo(0.5 + factor * (pixels - original))


def enlarged(picture: Image.Image, least: int = 448) -> Image.Image:
    """The picture with each pixel as a square of whole pixels, at least ``least`` wide."""
    times = max(1, -(-least // picture.width))
    return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)


def address(picture: Image.Image) -> str:
    """The picture as the address of an ``img`` element: a PNG, nothing lost."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
