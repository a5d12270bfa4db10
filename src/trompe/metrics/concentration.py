"""How a single heat map is spread: the share within a region, entropy, the Gini coefficient.

These take one map, not two, and are therefore not in the registry of metrics. A map near uniform
correlates with almost anything, so they stand beside any similarity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.metrics.base import like, pair


def mass_in(heat: Tensor, mask: Tensor) -> Tensor:
    """The share of each heat map's total that lies within a region.

    Args:
        heat: heat maps [B, H, W], not negative; they need not sum to 1.
        mask: the region, 0..1 or bool, [H, W] or [B, H, W].

    Returns:
        [B], within 0..1; not a number where a map is all zero.

    Raises:
        UsageError: if the shapes do not go together or an entry is negative.

    Example:
        >>> import torch
        >>> mass_in(torch.ones(1, 2, 2), torch.tensor([[1, 0], [0, 0]]))
        tensor([0.2500])
    """
    region = mask.to(heat.device).expand_as(heat) if mask.dim() == heat.dim() - 1 else mask
    share, region_ = pair(heat, region, dims=(3,))
    _not_negative("mass_in", share)
    return like((share * region_).sum(dim=(1, 2)) / share.sum(dim=(1, 2)), heat, heat)


def entropy(heat: Tensor) -> Tensor:
    """Shannon entropy of each heat map as a share of the largest possible, ``log N``.

    Args:
        heat: heat maps [B, ...], not negative; they need not sum to 1.

    Returns:
        [B], within 0..1: 0 where one entry holds all, 1 where all are equal; not a number where a
        map is all zero.

    Raises:
        UsageError: if there is no batch or an entry is negative.
    """
    share = _shares("entropy", heat)
    size = share.shape[1]
    bits = -torch.xlogy(share, share).sum(dim=1)
    return like(bits / math.log(size) if size > 1 else bits, heat, heat)


def gini(heat: Tensor) -> Tensor:
    """Gini coefficient of each heat map's entries: how unequal they are (Chalasani et al. 2020).

    Args:
        heat: heat maps [B, ...], not negative; they need not sum to 1.

    Returns:
        [B], 0 where all entries are equal, ``1 - 1/N`` where one holds all; not a number where a
        map is all zero.

    Raises:
        UsageError: if there is no batch or an entry is negative.
    """
    share = _shares("gini", heat).sort(dim=1).values
    size = share.shape[1]
    places = torch.arange(1, size + 1, dtype=share.dtype, device=share.device)
    return like((2 * places - size - 1).mul(share).sum(dim=1) / size, heat, heat)


def _shares(name: str, heat: Tensor) -> Tensor:
    """The entries of each map divided by their sum, [B, N]."""
    mass, _ = pair(heat, heat)
    _not_negative(name, mass)
    flat = mass.flatten(1)
    return flat / flat.sum(dim=1, keepdim=True)


def _not_negative(name: str, mass: Tensor) -> None:
    if bool((mass < 0).any()):
        raise UsageError(f"{name}: a map has negative entries: use heatmap(map)")
