"""The SmoothGrad map of any network, which Gaussian noise makes smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trompe.certificates.ball import ball
from trompe.certificates.certificate import Certificate
from trompe.certificates.methods.base import certificates
from trompe.certificates.randomised import certify_smoothgrad
from trompe.certificates.upper import WIDEN
from trompe.errors import UsageError
from trompe.types import InputSpace


@certificates.register("smoothgrad")
@dataclass(frozen=True)
class SmoothGrad:
    """Levine, Singla and Feizi 2019, and Stein's identity; see ``certify_smoothgrad``.

    Args:
        sigma: Standard deviation of the noise, in units of x.
        samples: Noisy copies per image.
        confidence: Of the statements from samples, below 1.
        top: Share of the pixels that count in a map.
        block: Side of the squares of pixels that count as one.
        generator: Of the noise, drawn image by image, so that the second image of a batch has other
            noise than alone; seed 0 by default.
    """

    sigma: float = 0.5
    samples: int = 1000
    confidence: float = 0.99
    top: float = 0.1
    block: int = 1
    generator: torch.Generator | None = None

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        radius: float | Sequence[float],
        norm: str,
        target: Tensor | None,
        input_space: InputSpace | None,
    ) -> Certificate:
        """Certify the images x [B, C, H, W]; see ``certify``.

        Raises:
            UsageError: If several radii are given, or a setting is out of range.
        """
        if isinstance(radius, Sequence):
            raise UsageError("method 'smoothgrad' takes one radius: several are for 'noise'")
        scale = 1.0 if input_space is None else WIDEN / min(input_space.std)
        found = certify_smoothgrad(
            model,
            x,
            radius=ball(radius * scale, norm).radius,
            norm=norm,
            target=target,
            sigma=self.sigma,
            samples=self.samples,
            confidence=self.confidence,
            top=self.top,
            block=self.block,
            generator=self.generator,
        )
        return replace(found, radius=float(radius))
