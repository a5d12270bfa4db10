"""The median of maps over noisy copies (Gan et al. 2022): a few odd copies do not move it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.mean import drawn
from trompe.errors import UsageError
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import Gradient
from trompe.explain.mean_of import magnitudes
from trompe.types import Explanation


@explainers.register("median_smooth")
@dataclass(frozen=True)
class MedianSmooth(Method):
    """Entry by entry the median of the magnitudes of a method's maps over noisy copies.

    Where SmoothGrad takes the mean, the median test for feature attribution (MeTFA) takes the
    median: of an odd number of maps, each divided by its total. The noise is drawn from the seed
    alone, so that the map is a fixed function of the image, differentiable where no two copies tie.

    Args:
        base: the method.
        samples: number of noisy copies, odd.
        noise: standard deviation, in the units of x.
        seed: of the noise.

    Raises:
        UsageError: if samples is not odd and positive, or the noise negative.
    """

    name = "median_smooth"
    base: Method = field(default_factory=Gradient)
    samples: int = 9
    noise: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.samples % 2 == 0:
            raise UsageError(f"samples must be odd and positive, not {self.samples}")
        if not 0 <= self.noise < math.inf:
            raise UsageError(f"noise must not be negative, nor infinite, not {self.noise}")

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.samples

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``; not negative."""

        def method(x: Tensor, keep: bool) -> Explanation:
            shape = (self.samples, 1, *x.shape[1:])
            draws = drawn("normal", self.seed, shape, x.dtype, x.device)
            maps = [
                magnitudes(self.base.relevance(model, x + self.noise * draw, target))
                for draw in draws
            ]
            return Explanation(torch.stack(maps).median(dim=0).values, model(x))

        return explained(method, model, x)
