"""Nothing happens to the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks.channels.base import Channel, channels
from trompe.types import InputSpace


@channels.register("identity")
@dataclass(frozen=True)
class Identity(Channel):
    """The image as it is."""

    def __call__(
        self, x: Tensor, space: InputSpace, generator: torch.Generator | None = None
    ) -> Tensor:
        """See ``Channel``."""
        return x
