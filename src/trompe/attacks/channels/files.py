"""Images as they are in a file: 8 bits, by Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trompe.errors import UsageError
from trompe.types import InputSpace


def to_pictures(x: Tensor, space: InputSpace) -> list[Image.Image]:
    """Normalised images [B, C, H, W] as 8-bit pictures, each pixel rounded to the nearest level.

    Raises:
        UsageError: if they have neither one channel nor three.
    """
    if x.shape[1] not in (1, 3):
        raise UsageError(
            f"an image file has 1 or 3 channels, these images {x.shape[1]}: leave this channel out"
        )
    levels = space.to_pixels(x.detach()).double().clamp(0, 1).mul(255).round().to(torch.uint8)
    arrays = levels.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one[..., 0] if x.shape[1] == 1 else one) for one in arrays]


def from_pictures(pictures: Sequence[Image.Image], x: Tensor, space: InputSpace) -> Tensor:
    """Pictures as normalised images in the shape, dtype and on the device of ``x``."""
    stacked = np.stack([np.asarray(one).reshape(*x.shape[-2:], -1) for one in pictures])
    pixels = torch.from_numpy(stacked.copy()).permute(0, 3, 1, 2).to(x.device, x.dtype) / 255
    return space.from_pixels(pixels)
