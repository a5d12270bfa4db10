"""Expected gradients (Erion et al. 2021): integrated gradients over many baselines."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.engine import explained
from trompe.engine.mean import chunked_sum, division
from trompe.errors import UsageError
from trompe.explain.base import Method, explainers, pick
from trompe.types import Explanation, InputSpace


# Kept for the next step of an attack, as ``trompe.engine.mean.drawn`` keeps its draws.
@functools.lru_cache(maxsize=2)
@torch.inference_mode(False)
def _drawn(
    samples: int,
    seed: int,
    shape: tuple[int, ...],
    space: InputSpace,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Baselines of noise within the input space, and times."""
    generator = torch.Generator().manual_seed(seed)
    times = _times(samples, len(shape) + 1, generator)
    noise = torch.rand(samples, *shape, generator=generator, dtype=torch.float64)
    low, high = min(space.low), max(space.high)
    chosen = low + (high - low) * noise
    if len(shape) == 3 and shape[0] == len(space.mean):
        chosen = space.from_pixels(noise)
    return chosen.unsqueeze(1).to(device, dtype), times.to(device, dtype)


@functools.lru_cache(maxsize=2)
@torch.inference_mode(False)
def _chosen(
    samples: int, seed: int, size: int, dims: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which of ``size`` baselines are taken, and times."""
    generator = torch.Generator().manual_seed(seed)
    times = _times(samples, dims, generator)
    index = torch.randint(size, (samples,), generator=generator)
    return index.to(device), times.to(device, dtype)


def _times(samples: int, dims: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, *[1] * dims, generator=generator, dtype=torch.float64)


@explainers.register("expected_gradients")
@dataclass(frozen=True)
class ExpectedGradients(Method):
    """``E (x - x0) grad g_k(x0 + t (x - x0))`` over baselines x0 and t uniform in 0..1 (eq. 3).

    Baselines and t are drawn from the seed alone, the same for every image and every call.

    Args:
        baselines: [N, C, H, W], normalised, such as images of the training set; by default images
            of noise, uniform within the input space.
        samples: number of pairs of a baseline and a t.
        seed: of the draws.
        chunk: how many images are held in memory with their graph.
        input_space: bounds the noise.

    Raises:
        UsageError: if samples or chunk is not positive, or the baselines are of another shape.
    """

    name = "expected_gradients"
    baselines: Tensor | None = None
    samples: int = 30
    seed: int = 0
    chunk: int = 64
    input_space: InputSpace = field(default_factory=InputSpace)

    def __post_init__(self) -> None:
        if self.samples < 1 or self.chunk < 1:
            raise UsageError(
                f"samples and chunk must be at least 1, not {self.samples} and {self.chunk}"
            )

    @property
    def copies(self) -> int:
        """See ``Method``."""
        return self.samples

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        return explained(lambda x, keep: self._method(model, x, target, keep), model, x)

    def _draws(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Baselines [samples, 1, ...] and times [samples, 1, ...]."""
        if self.baselines is None:
            return _drawn(
                self.samples, self.seed, tuple(x.shape[1:]), self.input_space, x.dtype, x.device
            )
        if self.baselines.shape[1:] != x.shape[1:]:
            raise UsageError(
                f"the baselines have the shape {tuple(self.baselines.shape)}, the images "
                f"{tuple(x.shape)}: give baselines [N, {', '.join(map(str, x.shape[1:]))}]"
            )
        size = self.baselines.shape[0]
        index, times = _chosen(self.samples, self.seed, size, x.dim(), x.dtype, x.device)
        given = self.baselines.detach().to(x.device, x.dtype)
        return given[index].unsqueeze(1), times

    def _method(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Explanation:
        batch = x.shape[0]
        copies, recompute = division(x, self.samples, self.chunk, model, keep)
        chosen, times = (draw.split(copies) for draw in self._draws(x))

        def part(x: Tensor, i: int) -> Tensor:
            away = x - chosen[i]
            points = (chosen[i] + times[i] * away).flatten(0, 1)
            score = pick(model(points), target.repeat(len(chosen[i]))).sum()
            (gradient,) = torch.autograd.grad(score, points, create_graph=keep)
            return (away * gradient.unflatten(0, (-1, batch))).sum(dim=0)

        total = chunked_sum(x, part, len(chosen), recompute=recompute)
        return Explanation(total / self.samples, model(x))
