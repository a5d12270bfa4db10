"""Coalitions of segments, and the linear maps from their scores to a weight per segment.

A coalition says which segments of the image are kept. LIME and KernelSHAP fit a linear model to
the scores of many coalitions; with the coalitions fixed, the fitted weights are a matrix times the
scores, and the matrix depends on neither the image nor the network.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def kept_at_random(samples: int, features: int, generator: torch.Generator) -> Tensor:
    """Coalitions of LIME: every segment is kept with probability 1/2; the first keeps all.

    Args:
        samples: M, number of coalitions.
        features: F, number of segments.
        generator: of the draws, on the CPU.

    Returns:
        0 or 1, float64, [M, F].
    """
    drawn = torch.rand(samples, features, generator=generator, dtype=torch.float64) < 0.5
    drawn[0] = True
    return drawn.double()


def closeness(coalitions: Tensor, width: float) -> Tensor:
    """LIME's weight of each coalition: ``sqrt(exp(-d^2 / width^2))``, [M].

    d is the cosine distance of the coalition from the one that keeps all, ``1 - sqrt(k / F)`` for k
    of F segments kept (Ribeiro et al. 2016, and the package ``lime``).

    Args:
        coalitions: 0 or 1, [M, F].
        width: of the kernel, positive.
    """
    distance = 1 - coalitions.mean(dim=1).sqrt()
    return torch.exp(-distance.square() / width**2).sqrt()


def ridge_weights(coalitions: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """The matrix of a weighted ridge regression with an intercept that has no penalty.

    ``G = (Z'WZ + ridge I)^-1 Z'W`` with the weighted mean taken off the columns of Z.

    Args:
        coalitions: Z, [M, F], float64.
        weights: the diagonal of W, not negative, [M].
        ridge: the penalty, not negative.

    Returns:
        G [F, M], float64: ``G @ scores`` are the coefficients; those of least norm where the
        coalitions leave them open.
    """
    centred = coalitions - (weights @ coalitions) / weights.sum()
    weighted = centred.t() * weights
    penalty = ridge * torch.eye(coalitions.shape[1], dtype=coalitions.dtype)
    inverse = torch.linalg.pinv(weighted @ centred + penalty, hermitian=True)
    found = inverse @ weighted
    # The scores' own mean is taken off too; the columns of Z are centred, so that it has no effect
    # beyond rounding, which is removed here.
    return found - (found.sum(dim=1, keepdim=True) * weights) / weights.sum()


def shapley_coalitions(
    samples: int, features: int, generator: torch.Generator, paired: bool
) -> tuple[Tensor, Tensor]:
    """Coalitions of KernelSHAP and their weights, the empty and the full one left out.

    Where all of them are no more than ``samples``, all are returned, weighted by the Shapley kernel
    ``(F - 1) / (binom(F, k) k (F - k))`` (Lundberg and Lee 2017, theorem 2); else coalitions are
    drawn from the distribution that has the kernel's shares, and weighted equally.

    Args:
        samples: M, largest number of coalitions.
        features: F, number of segments, at least 2.
        generator: of the draws, on the CPU.
        paired: whether every coalition drawn is followed by its complement (Covert and Lee 2021).

    Returns:
        Coalitions 0 or 1 [M, F] and weights [M], float64.
    """
    if features < 40 and 2**features - 2 <= samples:
        rows = list(itertools.product((0.0, 1.0), repeat=features))[1:-1]
        every = torch.tensor(rows, dtype=torch.float64)
        weights = [
            (features - 1) / (math.comb(features, k) * k * (features - k))
            for k in every.sum(dim=1).long().tolist()
        ]
        return every, torch.tensor(weights, dtype=torch.float64)
    sizes = torch.arange(1, features, dtype=torch.float64)
    shares = 1 / (sizes * (features - sizes))
    drawn = (samples + 1) // 2 if paired else samples
    kept = 1 + torch.multinomial(shares, drawn, replacement=True, generator=generator)
    order = torch.rand(drawn, features, generator=generator, dtype=torch.float64).argsort(dim=1)
    chosen = (order < kept.unsqueeze(1)).double()
    if paired:
        chosen = torch.stack([chosen, 1 - chosen], dim=1).flatten(0, 1)[:samples]
    return chosen, torch.ones(len(chosen), dtype=torch.float64)


def shapley_weights(coalitions: Tensor, weights: Tensor) -> Tensor:
    """The matrix of KernelSHAP's regression, whose weights add up to the whole difference.

    The least squares fit of ``score - score(none)`` by ``sum_j z_j phi_j`` under the constraint
    ``sum_j phi_j = score(all) - score(none)``, solved by its Karush-Kuhn-Tucker system.

    Args:
        coalitions: Z [M, F], float64, neither empty nor full.
        weights: the diagonal of W, positive, [M].

    Returns:
        G [F, 2 + M]: ``G @ [score(none), score(all), scores of the coalitions]`` is phi.
    """
    features = coalitions.shape[1]
    ones = torch.ones(features, 1, dtype=coalitions.dtype)
    weighted = coalitions.t() * weights
    # The scale of the weights does not matter; this one keeps the system well conditioned.
    weighted = weighted / weights.sum().clamp_min(1e-300)
    corner = torch.zeros(1, 1, dtype=coalitions.dtype)
    system = torch.cat(
        [torch.cat([weighted @ coalitions, ones], dim=1), torch.cat([ones.t(), corner], dim=1)]
    )
    none = torch.cat([-weighted.sum(dim=1, keepdim=True), -torch.ones_like(corner)])
    full = torch.cat([torch.zeros_like(ones), torch.ones_like(corner)])
    rest = torch.cat([weighted, torch.zeros(1, len(coalitions), dtype=coalitions.dtype)])
    right = torch.cat([none, full, rest], dim=1)
    return (torch.linalg.pinv(system, hermitian=True) @ right)[:features]
