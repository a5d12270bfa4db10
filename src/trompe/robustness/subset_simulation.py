"""How likely a random change misleads the explanation, also where that is rare.

ISO/IEC 24029 calls this statistical reliability: not the worst case, but its probability. Plain
Monte Carlo needs some hundred evaluations for each 1 % of relative error even where the event is
frequent, and 100 / p of them where it has a small probability p; subset simulation (Au and Beck
2001) reaches rare events through a chain of ever rarer ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.robustness.shares import share

Limit = Callable[[Tensor], Tensor]
"""Standard normal numbers [N, D] -> a value each, [N]; the event is a value below a threshold."""

_SHARE = 0.1
"""What part of the samples passes from one level to the next (Au and Beck's p0)."""
_DEEPEST = 9
"""Levels at most: a smaller probability than about 1e-9 is only said to be smaller."""


@dataclass(frozen=True)
class Probability:
    """An estimated probability.

    Args:
        value: The estimate; 0 where the event was never seen.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        evaluations: How many maps were computed.
        method: ``monte carlo`` or ``subset simulation``.
        runs: Independent runs of it, from whose spread the interval is taken (1 of Monte Carlo,
            whose interval is Clopper and Pearson's).
    """

    value: float
    low: float
    high: float
    evaluations: int
    method: str
    runs: int


def monte_carlo(
    limit: Limit, size: int, threshold: float, samples: int, generator: torch.Generator
) -> Probability:
    """The share of so many random changes, with Clopper and Pearson's interval.

    Args:
        limit: What is evaluated.
        size: How many standard normal numbers make a change.
        threshold: The event is a value below it.
        samples: How many are drawn.
        generator: Of the numbers.
    """
    values = limit(torch.randn(samples, size, generator=generator))
    found = share(int((values < threshold).sum()), samples)
    return Probability(found.value, found.low, found.high, samples, "monte carlo", 1)


def subset_simulation(
    limit: Limit,
    size: int,
    threshold: float,
    samples: int,
    generator: torch.Generator,
    runs: int = 5,
) -> Probability:
    """The probability as a product of conditional ones (Au and Beck 2001).

    Each level's threshold is the lowest tenth of its samples' values; from these, chains that keep
    the normal distribution (preconditioned Crank-Nicolson proposals, their step adapted towards
    44 % of acceptance; Papaioannou et al. 2015) fill the next level. Independent runs give the
    interval: Student's t of the logarithms, since the estimates of a run are about log-normal.
    Where the event lies apart from where the values fall first, all runs may miss it, and no
    interval says so: an estimate, not a bound.

    Args:
        limit: What is evaluated.
        size: How many standard normal numbers make a change.
        threshold: The event is a value below it.
        samples: Evaluations per level and run; at least 50.
        generator: Of the numbers.
        runs: Independent runs, at least 3.

    Raises:
        UsageError: If there are too few samples or runs.
    """
    if samples < 50 or runs < 3:
        raise UsageError(f"subset simulation takes 50 samples and 3 runs, not {samples} and {runs}")
    from scipy.stats import t as student

    found = [_run(limit, size, threshold, samples, generator) for _ in range(runs)]
    estimates, evaluations = [one.value for one in found], sum(one.evaluations for one in found)
    mean = sum(estimates) / runs
    if evaluations == runs * samples:  # no level was passed: plain samples, and their interval
        plain = share(round(mean * evaluations), evaluations)
        return Probability(mean, plain.low, plain.high, evaluations, "subset simulation", runs)
    if min(estimates) == 0:  # a run that never came there: nothing below is sure
        high = max(one.high for one in found)
        return Probability(mean, 0.0, high, evaluations, "subset simulation", runs)
    logs = [math.log(one) for one in estimates]
    centre = sum(logs) / runs
    spread = math.sqrt(sum((one - centre) ** 2 for one in logs) / (runs - 1) / runs)
    reach = float(student.ppf(0.975, runs - 1)) * spread
    low, high = (min(1.0, math.exp(centre + side * reach)) for side in (-1, 1))
    return Probability(
        mean, min(low, mean), max(high, mean), evaluations, "subset simulation", runs
    )


class _Run(NamedTuple):
    """The estimate, how many evaluations it took, and the chance of the last level reached."""

    value: float
    evaluations: int
    high: float


def _run(
    limit: Limit, size: int, threshold: float, samples: int, generator: torch.Generator
) -> _Run:
    points = torch.randn(samples, size, generator=generator)
    values = limit(points)
    chance, used, step = 1.0, samples, 0.6
    for _ in range(_DEEPEST):
        count = max(1, round(_SHARE * samples))
        order = values.argsort()
        level = float(values[order[count - 1 : count + 1]].mean())
        if level <= threshold or not math.isfinite(level):
            break
        inside = int((values < level).sum())
        if inside == 0 or inside == samples:  # a plateau: no level can be told from the next
            break
        chance *= inside / samples
        seeds = order[:inside]
        points, values, step, made = _chains(
            limit, points[seeds], values[seeds], level, samples, step, generator
        )
        used += made
    return _Run(chance * float((values < threshold).double().mean()), used, chance)


def _chains(
    limit: Limit,
    points: Tensor,
    values: Tensor,
    level: float,
    samples: int,
    step: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, float, int]:
    """Grow chains from the seeds until there are as many points as samples, all below the level."""
    all_points, all_values, held, made = [points], [values], len(points), 0
    now, at = points, values
    while held < samples:
        now, at = now[: samples - held], at[: samples - held]
        noise = torch.randn(now.shape, generator=generator)
        proposed = math.sqrt(1 - step**2) * now + step * noise
        found = limit(proposed)
        made += len(now)
        accepted = found < level
        now = torch.where(accepted[:, None], proposed, now)
        at = torch.where(accepted, found, at)
        rate = float(accepted.double().mean())
        step = min(1.0, max(1e-3, step * math.exp((rate - 0.44) / 2)))
        all_points.append(now)
        all_values.append(at)
        held += len(now)
    return torch.cat(all_points), torch.cat(all_values), step, made
