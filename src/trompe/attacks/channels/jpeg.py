"""JPEG compression."""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from trompe.attacks.channels.base import Channel, channels
from trompe.attacks.channels.files import from_pictures, to_pictures
from trompe.errors import UsageError
from trompe.types import InputSpace, constant_vector

# The quantisation tables of the JPEG standard, ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# Of JFIF: luminance and the two chrominances from red, green and blue.
_TO_YCC = (0.299, 0.587, 0.114, -0.168735892, -0.331264108, 0.5, 0.5, -0.418687589, -0.081312411)
_TO_RGB = (1.0, 0.0, 1.402, 1.0, -0.344136286, -0.714136286, 1.0, 1.772, 0.0)


def quantisation(quality: int, chrominance: bool) -> tuple[float, ...]:
    """The 64 steps that the coefficients are rounded to, row by row, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = _CHROMINANCE if chrominance else _LUMINANCE
    return tuple(float(min(255, max(1, (one * scale + 50) // 100))) for one in table)


@functools.lru_cache(maxsize=1)
def _cosines() -> tuple[float, ...]:
    """The orthonormal discrete cosine transform of 8 numbers, row by row."""
    rows = [
        [
            math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * (2 * n + 1) * k / 16)
            for n in range(8)
        ]
        for k in range(8)
    ]
    return tuple(one for row in rows for one in row)


@channels.register("jpeg")
@dataclass(frozen=True)
class Jpeg(Channel):
    """Compression with the standard's tables and halved colour resolution (4:2:0).

    Rounding of the coefficients is replaced by ``[x] + (x - [x])^3``, [x] the nearest whole number
    (Shin and Song 2017): close to it, and its derivative is not zero. All else is rounded as the
    codec does, with the derivative of leaving it. ``real`` compresses with Pillow.

    Args:
        quality: 1 (worst) to 100, as libjpeg counts.
        subsampling: ``4:2:0``, or ``4:4:4`` for the full colour resolution.

    Raises:
        UsageError: if one of them is out of range, or, when called, if the images have neither one
            channel nor three.
    """

    images_only = True

    quality: int = 75
    subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be within 1..100, not {self.quality}")
        if self.subsampling not in ("4:2:0", "4:4:4"):
            raise UsageError(f"unknown subsampling '{self.subsampling}': choose from 4:2:0, 4:4:4")

    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """See ``Channel``."""
        if x.shape[1] not in (1, 3):
            raise UsageError(
                f"JPEG has 1 or 3 channels, these images {x.shape[1]}: leave this channel out"
            )
        height, width = x.shape[-2:]
        halved = self.subsampling == "4:2:0" and x.shape[1] == 3
        block = 16 if halved else 8
        levels = _whole(255 * space.to_pixels(x))
        padding = (0, -width % block, 0, -height % block)
        planes = list(F.pad(levels, padding, mode="replicate").split(1, dim=1))
        if len(planes) == 3:
            planes = _mixed(planes, _TO_YCC)
            planes = [_whole(planes[0]), _whole(planes[1] + 128), _whole(planes[2] + 128)]
        if halved:
            planes = [planes[0], *(_halved(plane) for plane in planes[1:])]
        planes = [self._coded(plane, index > 0) for index, plane in enumerate(planes)]
        if halved:
            planes = [planes[0], *(_whole(_doubled(plane)) for plane in planes[1:])]
        if len(planes) == 3:
            planes = _mixed([planes[0], planes[1] - 128, planes[2] - 128], _TO_RGB)
        decoded = torch.cat(planes, dim=1)[..., :height, :width]
        return space.from_pixels(_whole(decoded) / 255)

    def _coded(self, plane: Tensor, chrominance: bool) -> Tensor:
        """A plane [B, 1, H, W] of levels 0..255, its coefficients rounded."""
        basis = constant_vector(_cosines(), plane.dtype, plane.device).view(8, 8)
        steps = quantisation(self.quality, chrominance)
        table = constant_vector(steps, plane.dtype, plane.device).view(8, 8)
        blocks = _blocks(plane - 128)
        coefficients = basis @ blocks @ basis.t()
        kept = _rounded(coefficients / table) * table
        return _whole(_together(basis.t() @ kept @ basis, plane.shape) + 128)

    def real(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """The 8-bit image after Pillow's own encoder and decoder."""
        return from_pictures([self._recoded(one) for one in to_pictures(x, space)], x, space)

    def _recoded(self, picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        subsampling = 2 if self.subsampling == "4:2:0" else 0
        picture.save(stream, format="JPEG", quality=self.quality, subsampling=subsampling)
        with Image.open(stream) as decoded:
            return decoded.convert(picture.mode)


def _whole(levels: Tensor) -> Tensor:
    """The nearest whole numbers within 0..255, with the derivative of leaving them.

    Between the coefficients' rounding the codec holds whole numbers everywhere; their differences
    from the numbers are small and have no say in what survives.
    """
    return levels + (levels.detach().clamp(0, 255).round() - levels.detach())


def _rounded(x: Tensor) -> Tensor:
    """``[x] + (x - [x])^3``, [x] the nearest whole number."""
    nearest = x.detach().round()
    return nearest + (x - nearest) ** 3


def _mixed(planes: list[Tensor], weights: tuple[float, ...]) -> list[Tensor]:
    """Three linear combinations of three planes."""
    return [
        sum(weights[3 * i + j] * planes[j] for j in range(3))  # type: ignore[misc]
        for i in range(3)
    ]


def _blocks(plane: Tensor) -> Tensor:
    """A plane [B, 1, H, W] in blocks, [B, H/8, W/8, 8, 8]."""
    return plane.squeeze(1).unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).transpose(2, 3)


def _together(blocks: Tensor, shape: torch.Size) -> Tensor:
    """Blocks [B, H/8, W/8, 8, 8] as a plane [B, 1, H, W]."""
    return blocks.transpose(2, 3).reshape(shape)


def _halved(plane: Tensor) -> Tensor:
    """A plane of half the height and width, the mean of four, rounded as libjpeg does.

    Halves are rounded down in the first column, up in the second, and so on.
    """
    mean = F.avg_pool2d(plane, 2)
    down = torch.arange(mean.shape[-1], device=mean.device) % 2 == 0
    return mean + (_whole(mean + torch.where(down, -0.1, 0.1)) - mean).detach()


def _doubled(plane: Tensor) -> Tensor:
    """A plane of twice the height and width, by libjpeg's triangle filter ("fancy upsampling")."""
    return F.interpolate(plane, scale_factor=2, mode="bilinear", align_corners=False)
