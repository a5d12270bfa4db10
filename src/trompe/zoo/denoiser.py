"""A small denoiser that stands before a network which was not trained with noise.

Denoised smoothing (Salman et al. 2020): the pair of denoiser and classifier is smoothed in place of
the classifier, so that a fixed network keeps its class on noisy copies. Trained by
``scripts/train_denoiser.py``; the card is docs/models/denoiser.md.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.zoo.checkpoint import read_weights

WIDTHS = (24, 48, 96)
"""Channels at a half, a quarter and an eighth of the height and width."""
LARGEST = 0.25
"""The largest noise that it was trained for, in pixel units."""
_WEIGHTS = Path(__file__).parent / "weights" / "denoiser.safetensors"
_MULTIPLE = 2 ** len(WIDTHS)


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        out: Tensor = x + self.second(F.relu(self.first(x)))
        return out


class Denoiser(nn.Module):
    """A U-Net that guesses the noise in an image and takes it away.

    Works on squares of 2 x 2 pixels as channels (pixel unshuffle), as FFDNet does (Zhang et al.
    2018), and is told the standard deviation of the noise as one more channel.

    Args:
        widths: Channels at a half, a quarter and an eighth of the height and width.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.enter = nn.Conv2d(13, widths[0], 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths)])
        self.left = nn.ModuleList([Block(width) for width in widths])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths)]
        )
        self.right = nn.ModuleList([Block(width) for width in widths[:-1]])
        self.leave = nn.Conv2d(widths[0], 12, 3, padding=1)

    def forward(self, pixels: Tensor, sigma: float | Tensor) -> Tensor:
        """Take the noise away.

        Args:
            pixels: Noisy images, pixel units (0..1 and, with noise, beyond), [B, 3, H, W].
            sigma: Standard deviation of their noise, pixel units; one, or one per image [B].

        Returns:
            The images without noise, [B, 3, H, W].
        """
        height, width = pixels.shape[-2:]
        pad = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        small = F.pixel_unshuffle(F.pad(pixels, pad, mode="replicate"), 2)
        size = torch.as_tensor(sigma, dtype=pixels.dtype, device=pixels.device)
        level = size.reshape(-1, 1, 1, 1).expand(len(small), 1, *small.shape[-2:])
        now = self.enter(torch.cat([small, level], dim=1))
        kept = []
        for index, block in enumerate(self.left):
            now = block(now)
            if index < len(self.down):
                kept.append(now)
                now = self.down[index](now)
        for index in reversed(range(len(self.up))):
            now = self.right[index](self.up[index](now) + kept[index])
        noise = F.pixel_shuffle(self.leave(now), 2)[..., :height, :width]
        return pixels - noise


@cache
def denoiser() -> Denoiser:
    """The denoiser that comes with trompe, for noise up to ``LARGEST``, in evaluation mode."""
    built = Denoiser()
    built.load_state_dict(dict(read_weights(_WEIGHTS)))
    return built.eval().requires_grad_(False)


def check_noise(sigma: float) -> None:
    """Refuse noise that the denoiser has not seen in training.

    Raises:
        UsageError: If ``sigma`` (pixel units) is above ``LARGEST``.
    """
    if sigma > LARGEST:
        raise UsageError(
            f"the denoiser is trained for noise up to {LARGEST}, not {sigma:g}: take a smaller "
            "sigma or your own denoiser"
        )
