"""SmoothGrad against beta-smoothing at equal strength: maps and run times (figure 5)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trompe import metrics
from trompe.engine import adapted, frozen, record
from trompe.engine.activations import ACTIVATIONS
from trompe.engine.decompose import Decomposed
from trompe.engine.selections import functions_of
from trompe.errors import ExplanationError, UsageError
from trompe.explain.base import Method
from trompe.explain.beta_smoothing import BetaSmoothing
from trompe.explain.gradient import Gradient
from trompe.explain.smoothgrad import SmoothGrad
from trompe.geometry.noise import sigma_of_beta
from trompe.in_brief import InBrief
from trompe.types import heatmap

SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the noise that Theorem 2 names, tried by ``compare_smoothings``."""


def first_layer_norm(model: Any, x: Any, *, units: int = 64, seed: int = 0) -> float:
    """``||w||`` of a typical unit of the first layer, a batch norm that follows included.

    The Euclidean norm of the derivative of what enters the first activation with a kink, towards
    the input: exact where all before it is linear. The median over some of its units, drawn at
    random, those that do not depend on the input left out.

    Args:
        model: any module [B, ...] -> [B, K], or a ``LoadedModel``.
        x: images; the first one is used.
        units: how many are drawn.
        seed: of the draw.

    Returns:
        The norm, positive, per unit of x.

    Raises:
        ExplanationError: if no activation has a kink, or no unit depends on the input.
    """
    given = adapted(model, x, evaluation=True)
    start = given.x[:1].detach().clone().requires_grad_(True)
    with torch.enable_grad(), Decomposed():
        tape, _ = record(frozen(given.model), start)
        kinds = functions_of(*ACTIVATIONS, smoothed=False)
        kinked = next((call for call in tape.calls if call.func in kinds), None)
        if kinked is None:
            raise ExplanationError(
                "the network has no activation with a kink, so beta-smoothing changes nothing: no "
                "noise corresponds to it"
            )
        entering = kinked.edges[0][0].flatten()
        order = torch.randperm(len(entering), generator=torch.Generator().manual_seed(seed))
        rows = [
            torch.autograd.grad(entering[i], start, retain_graph=True)[0]
            for i in order[:units].tolist()
        ]
    norms = torch.stack([row.norm() for row in rows])
    norms = norms[norms > 0]
    if not len(norms):
        raise ExplanationError("the first layer of the network does not depend on its input")
    return float(norms.median())


def matching_sigma(model: Any, x: Any, beta: float) -> float:
    """The SmoothGrad noise that resembles beta-smoothing of a network (Theorem 2's choice).

    ``sigma_of_beta`` for the weights of the first layer: exact in the sense given there for one
    unit, a guess for a network, whose later layers and max pooling the theorem does not cover.
    ``compare_smoothings`` measures how good a guess, and tries smaller and larger noise.

    Args:
        model: any module [B, ...] -> [B, K], or a ``LoadedModel``.
        x: images; the first one is used.
        beta: of the softplus, positive.

    Returns:
        Standard deviation in the units of x, for ``SmoothGrad(sigma=...)``.

    Raises:
        UsageError: if beta is not positive and finite.
        ExplanationError: if no activation has a kink.
    """
    return sigma_of_beta(beta, first_layer_norm(model, x))


@dataclass(frozen=True, repr=False)
class Comparison(InBrief):
    """SmoothGrad beside beta-smoothing, of B images.

    Args:
        beta: of the smoothing.
        sigma: Theorem 2's choice for it, in units of x.
        sigmas: of SmoothGrad, rising, in units of x.
        samples: of SmoothGrad, rising; the maps are compared with the most.
        agreement: correlation of SmoothGrad's heat map with the beta-smoothed one, [sigmas, B],
            within -1..1.
        plain: the same for the map that is not smoothed, [B].
        seconds: per image, by name (``plain``, ``beta-smoothing``, ``SmoothGrad 10``), one per
            repetition.
    """

    beta: float
    sigma: float
    sigmas: tuple[float, ...]
    samples: tuple[int, ...]
    agreement: Tensor
    plain: Tensor
    seconds: Mapping[str, tuple[float, ...]]

    @property
    def closest(self) -> float:
        """The sigma whose maps are nearest to the beta-smoothed ones, by the median."""
        return self.sigmas[int(self.agreement.nanquantile(0.5, dim=1).argmax())]

    @property
    def median_seconds(self) -> dict[str, float]:
        """The median run time per image, by name."""
        return {name: statistics.median(times) for name, times in self.seconds.items()}


def compare_smoothings(
    model: Any,
    x: Any,
    target: Any,
    *,
    beta: float = 0.8,
    method: Method | None = None,
    samples: Sequence[int] = (10, 50),
    sigmas: Sequence[float] | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> Comparison:
    """Set SmoothGrad beside beta-smoothing of equal strength (figure 5 of Dombrowski et al. 2019).

    The run times are taken in one process, one method after the other in every round, so that
    whatever else the machine does falls on all of them. The first round is not counted.

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        x: images, normalised.
        target: class of each, [B].
        beta: of the smoothing, positive; the paper's 0.8.
        method: the one smoothed; the gradient by default.
        samples: of SmoothGrad; run times of each, maps of the most.
        sigmas: of SmoothGrad, units of x; by default Theorem 2's choice and shares of it.
        repeats: rounds that are counted.
        seed: of SmoothGrad's noise.

    Raises:
        UsageError: if a setting is out of range.
        ExplanationError: if a map is all zero or not finite, or no activation has a kink.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3)).eval()
        >>> found = compare_smoothings(net, torch.rand(1, 3, 2, 2), torch.tensor([0]), repeats=1)
        >>> found.agreement.shape
        torch.Size([5, 1])
    """
    if repeats < 1 or not samples or (sigmas is not None and not sigmas):
        raise UsageError("repeats must be at least 1, and there must be samples and sigmas")
    given, base = adapted(model, x, evaluation=True), method or Gradient()
    judge, x, target = frozen(given.model), given.x.detach(), given.target(target)
    sigma = matching_sigma(model, x, beta)
    tried = sorted(sigmas or [share * sigma for share in SHARES])
    counts = sorted(samples)
    smoothed = BetaSmoothing(base=base, beta=beta)

    def heat(explainer: Method) -> Tensor:
        return heatmap(explainer(judge, x, target))

    aim = heat(smoothed)
    noisy = [heat(SmoothGrad(base=base, samples=counts[-1], sigma=one, seed=seed)) for one in tried]
    timed: dict[str, Method] = {"plain": base, "beta-smoothing": smoothed}
    for count in counts:
        timed[f"SmoothGrad {count}"] = SmoothGrad(base=base, samples=count, sigma=sigma, seed=seed)
    return Comparison(
        beta=beta,
        sigma=sigma,
        sigmas=tuple(tried),
        samples=tuple(counts),
        agreement=torch.stack([metrics.pcc(one, aim) for one in noisy]).cpu(),
        plain=metrics.pcc(heat(base), aim).cpu(),
        seconds=_interleaved(
            {name: partial(one, judge, x, target) for name, one in timed.items()},
            repeats,
            x,
        ),
    )


def _interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int, x: Tensor
) -> dict[str, tuple[float, ...]]:
    """Seconds per image of each piece of work, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            begin = _now(x)
            work()
            seconds[name].append((_now(x) - begin) / len(x))
    return {name: tuple(times[1:]) for name, times in seconds.items()}


def _now(x: Tensor) -> float:
    """The time when all that was asked of the device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
