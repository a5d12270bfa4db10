"""Theorem 2: smoothing the network is averaging the ReLU network's gradient over noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.engine.smoothing import check_beta
from trompe.errors import UsageError

_FACTOR = math.log(2) * math.sqrt(2 * math.pi)


def sigma_of_beta(beta: float, weight_norm: float = 1.0) -> float:
    """The SmoothGrad noise that beta-smoothing resembles: ``log(2) sqrt(2 pi) / (b ||w||)``.

    The normal noise under which the mean of ``relu`` at the kink is what softplus has there:
    ``E relu(s n) = s / sqrt(2 pi)`` against ``softplus_b(0) = log(2) / b``. It is within 5 % of
    the standard deviation of ``p_b`` itself, ``pi / (sqrt(3) b)`` (Theorem 2 of Dombrowski et al.
    2019). Made for one unit with weights of that norm, a rule of thumb for a network, where the
    rows of the first layer are the natural choice: see ``matching_sigma``.

    Args:
        beta: of the softplus, positive.
        weight_norm: ``||w||`` of the unit, positive: the noise is in units of x.

    Returns:
        Standard deviation, in units of x, positive.

    Raises:
        UsageError: if beta or weight_norm is not positive and finite.

    Example:
        >>> round(sigma_of_beta(0.8), 3)
        2.172
    """
    check_beta(beta)
    return _FACTOR / (beta * _positive(weight_norm))


def beta_of_sigma(sigma: float, weight_norm: float = 1.0) -> float:
    """The beta that resembles SmoothGrad with noise ``sigma``: the inverse of ``sigma_of_beta``.

    Args:
        sigma: standard deviation of the noise, in units of x, positive.
        weight_norm: ``||w||`` of the unit, positive.

    Returns:
        Beta of the softplus, positive.

    Raises:
        UsageError: if sigma or weight_norm is not positive and finite.

    Example:
        >>> round(beta_of_sigma(2.172), 3)
        0.8
    """
    return _FACTOR / (_positive(sigma) * _positive(weight_norm))


def noise_density(noise: Tensor, beta: float) -> Tensor:
    """``p_b(e) = b / (exp(b e / 2) + exp(-b e / 2))^2``, the logistic density of scale 1 / b."""
    check_beta(beta)
    return beta * torch.sigmoid(beta * noise) * torch.sigmoid(-beta * noise)


def draw_noise(beta: float, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw from ``p_b`` (Theorem 2), float64 [count].

    Args:
        beta: of the softplus, positive.
        count: how many.
        generator: of the draws.

    Raises:
        UsageError: if beta is not positive and finite.
    """
    check_beta(beta)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.logit(uniform.clamp(1e-300, 1 - 1e-16)) / beta


@dataclass(frozen=True)
class Averages:
    """Both sides of Theorem 2, [d].

    Args:
        smoothed: gradient of ``softplus_b(w . x)``.
        averaged: mean gradient of ``relu(w . (x + e w / ||w||))`` over samples.
        error: standard error of that mean.
        integrated: the same mean by quadrature of the density.
    """

    smoothed: Tensor
    averaged: Tensor
    error: Tensor
    integrated: Tensor


def theorem_2(
    weight: Tensor,
    x: Tensor,
    beta: float,
    *,
    samples: int = 100_000,
    generator: torch.Generator | None = None,
) -> Averages:
    """Compute both sides of Theorem 2 for ``g(x) = relu(w . x)``.

    The noise lies along ``w / ||w||``, with density ``p`` of ``b ||w||`` (Dombrowski et al. 2019,
    Theorem 2).

    Args:
        weight: w, [d].
        x: [d].
        beta: of the softplus.
        samples: of the noise.
        generator: of the noise.

    Returns:
        Gradients, [d] each, float64.
    """
    weight, x = weight.detach().double(), x.detach().double()
    norm = float(weight.norm())
    score = float(weight @ x)
    noise = draw_noise(beta * norm, samples, generator=generator)
    share = (score + noise * norm > 0).double()
    mean, spread = float(share.mean()), float(share.std()) / math.sqrt(samples)
    # Where the noise opens the gate: from -score / ||w|| on.
    start, stop = max(-60.0, -beta * score), max(60.0, 60.0 - beta * score)
    grid = torch.linspace(start, stop, 200_001, dtype=torch.float64) / (beta * norm)
    integral = torch.trapezoid(noise_density(grid, beta * norm), grid)
    return Averages(
        smoothed=torch.sigmoid(torch.tensor(beta * score).double()) * weight,
        averaged=mean * weight,
        error=spread * weight.abs(),
        integrated=integral * weight,
    )


def _positive(value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"sigma and weight_norm must be positive and finite, not {value}")
    return value
