"""What an objective of training is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.input_space import InputSpace


@dataclass(frozen=True)
class Batch:
    """Images with their classes.

    Args:
        x: The images, normalised, [B, C, H, W].
        y: Their classes, [B].
        space: The model's normalisation: sizes of defences are in pixel units (0..1).
        generator: Of all random numbers, on the CPU.
    """

    x: Tensor
    y: Tensor
    space: InputSpace
    generator: torch.Generator

    def normal(self) -> Tensor:
        """Standard normal numbers of the images' shape."""
        return torch.randn(self.x.shape, generator=self.generator, dtype=self.x.dtype).to(self.x)

    def even(self) -> Tensor:
        """Numbers drawn evenly from -1 to 1, of the images' shape."""
        drawn = torch.rand(self.x.shape, generator=self.generator, dtype=self.x.dtype)
        return (2 * drawn - 1).to(self.x)


Objective = Callable[[nn.Module, Batch], dict[str, Tensor]]
"""(model, batch) -> terms of the loss by name, a number each, that are added up."""
