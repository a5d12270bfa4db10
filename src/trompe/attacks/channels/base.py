"""The shape of a channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trompe.registry import Registry
from trompe.types import InputSpace


@dataclass(frozen=True)
class Channel(ABC):
    """What may happen to a manipulated image before a network sees it.

    A frozen dataclass whose fields are its options. Images are normalised, [B, C, H, W], and keep
    their shape; each is treated as if it were alone.
    """

    images_only: ClassVar[bool] = False
    """Whether it is of images [B, C, H, W] alone, and not of signals or volumes."""

    random: ClassVar[bool] = False
    """Whether it draws from the generator."""

    @abstractmethod
    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """The image after the channel, differentiable, or with a stand-in for its derivative."""

    def real(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """The image as the real channel leaves it, which results are judged by."""
        return self(x, space, generator).detach()


channels: Registry[type[Channel]] = Registry("channel", "trompe.attacks.channels")
"""All channels, by name."""
