"""Uniform gradient (Wang et al. 2020): the mean gradient over a box around the image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.mean import drawn, noisy_mean
from trompe.errors import UsageError
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import Gradient
from trompe.types import Explanation


@explainers.register("uniform_gradient")
@dataclass(frozen=True)
class UniformGradient(Method):
    """The mean of the gradient over uniform noise: ``E grad g_k(x + radius u)``, u in [-1, 1].

    Its curvature is bounded where that of the gradient is not. The noise is drawn from the seed
    alone, the same for every image and every call, so that the map is a fixed, differentiable
    function of the image.

    Args:
        samples: number of noisy copies.
        radius: of the box, as a share of each image's range (maximum minus minimum).
        seed: of the noise.
        chunk: how many images are held in memory with their graph.

    Raises:
        UsageError: if samples or chunk is not positive, or the radius negative.
    """

    name = "uniform_gradient"
    samples: int = 10
    radius: float = 0.1
    seed: int = 0
    chunk: int = 64

    def __post_init__(self) -> None:
        if self.samples < 1 or self.chunk < 1:
            raise UsageError(
                f"samples and chunk must be at least 1, not {self.samples} and {self.chunk}"
            )
        if self.radius < 0:
            raise UsageError(f"radius must not be negative, not {self.radius}")

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.samples

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            shape = (self.samples, 1, *x.shape[1:])
            mean = noisy_mean(
                Gradient().relevance,
                model,
                x,
                target,
                draws=drawn("uniform", self.seed, shape, x.dtype, x.device),
                size=self.radius,
                chunk=self.chunk,
                keep=keep,
            )
            return Explanation(mean, model(x))

        return explained(method, model, x)
