"""The normalised space that a model works in."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def constant_vector(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of a few numbers, made once: copying them to a GPU in every step waits for it."""
    return torch.tensor(values, dtype=dtype, device=device)


@dataclass(frozen=True)
class InputSpace:
    """The normalised space a model works in: ``x = (pixels - mean) / std``, pixels in 0..1.

    Args:
        mean: per channel, in pixel units 0..1.
        std: per channel, in pixel units, positive.

    Raises:
        UsageError: if the lengths differ or a std is not positive.

    Example:
        >>> InputSpace().low[0]
        -2.117903930131004
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(
                f"mean has {len(self.mean)} channels and std {len(self.std)}: give one of each per "
                "channel"
            )
        if not all(s > 0 for s in self.std):
            raise UsageError(f"std must be positive, not {self.std}")

    @classmethod
    def between(cls, low: float, high: float, channels: int) -> InputSpace:
        """Of inputs without pixels, such as signals and volumes: values from ``low`` to ``high``.

        What is a share of the pixel range for images (radii, changes) is one of this range then.

        Raises:
            UsageError: if the range is empty.

        Example:
            >>> InputSpace.between(-2.0, 6.0, channels=1).high
            (6.0,)
        """
        if not low < high:
            raise UsageError(f"no value is between {low} and {high}")
        width = 1 / (high - low)
        return cls((-low * width,) * channels, (width,) * channels)

    @property
    def low(self) -> tuple[float, ...]:
        """The normalised value of a black pixel, per channel."""
        return tuple((0.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))

    @property
    def high(self) -> tuple[float, ...]:
        """The normalised value of a white pixel, per channel."""
        return tuple((1.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.dim() < 2 or like.shape[1] != len(values):
            raise UsageError(
                f"the input space has {len(values)} channels, the tensor the shape "
                f"{tuple(like.shape)}: expected [B, {len(values)}, ...]"
            )
        return constant_vector(values, like.dtype, like.device).view(1, -1, *[1] * (like.dim() - 2))

    def clamp(self, x: Tensor) -> Tensor:
        """The nearest valid image to normalised ``x`` [B, C, H, W]: every pixel within 0..1."""
        return torch.clamp(x, self._column(self.low, x), self._column(self.high, x))

    def scale(self, amount: float, like: Tensor) -> Tensor:
        """A change of ``amount`` pixel units (0..1) in normalised units, [1, C, 1, 1]."""
        return amount / self._column(self.std, like)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Normalised ``x`` [B, C, H, W] as pixels in 0..1 (not clamped)."""
        return x * self._column(self.std, x) + self._column(self.mean, x)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..1 [B, C, H, W] as normalised values."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)
