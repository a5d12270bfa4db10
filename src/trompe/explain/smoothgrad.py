"""SmoothGrad (Smilkov et al. 2017), over any explanation method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.mean import drawn, noisy_mean
from trompe.errors import UsageError
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import Gradient
from trompe.types import Explanation


@explainers.register("smoothgrad")
@dataclass(frozen=True)
class SmoothGrad(Method):
    """The mean of a method's maps over normal noise added to the input.

    The noise is drawn from the seed alone, the same for every image and every call, so that the
    map is a fixed, differentiable function of the image.

    Args:
        base: the method averaged.
        samples: number of noisy copies (the paper attacks 10).
        noise: standard deviation, as a share of each image's range (maximum minus minimum).
        sigma: standard deviation in the units of x, the same for every image, in place of
            ``noise``; ``trompe.geometry.matching_sigma`` gives the one that resembles a beta.
        seed: of the noise.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if samples or chunk is not positive, or noise or sigma negative.
    """

    name = "smoothgrad"
    base: Method = field(default_factory=Gradient)
    samples: int = 10
    noise: float = 0.1
    seed: int = 0
    chunk: int = 64
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.chunk < 1:
            raise UsageError(
                f"samples and chunk must be at least 1, not {self.samples} and {self.chunk}"
            )
        if self.noise < 0:
            raise UsageError(f"noise must not be negative, not {self.noise}")
        if self.sigma is not None and not 0 <= self.sigma < math.inf:
            raise UsageError(f"sigma must not be negative, nor infinite, not {self.sigma}")

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.samples

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            shape = (self.samples, 1, *x.shape[1:])
            mean = noisy_mean(
                self.base.relevance,
                model,
                x,
                target,
                draws=drawn("normal", self.seed, shape, x.dtype, x.device),
                size=self.noise if self.sigma is None else self.sigma,
                chunk=self.chunk,
                keep=keep,
                relative=self.sigma is None,
            )
            return Explanation(mean, model(x))

        return explained(method, model, x)
