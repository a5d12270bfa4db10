"""How far two maps or images are apart, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.metrics.base import like, metric, pair


@metric
def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error over all entries of each image (Dombrowski et al. 2019).

    Args:
        a: [B, ...], any units.
        b: the same shape.

    Returns:
        [B], not negative, in squared units of ``a``.

    Raises:
        UsageError: if the shapes do not go together.

    Example:
        >>> import torch
        >>> mse(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5))
        tensor([0.2500, 0.2500])
    """
    first, second = pair(a, b)
    return like((first - second).square().flatten(1).mean(dim=1), a, b)


@metric
def l2(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over all entries of each image, in units of ``a``.

    Args:
        a: [B, ...].
        b: the same shape.

    Returns:
        [B], not negative.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = pair(a, b)
    return like(torch.linalg.vector_norm((first - second).flatten(1), dim=1), a, b)


@metric
def linf(a: Tensor, b: Tensor) -> Tensor:
    """The largest absolute difference of an entry of each image, in units of ``a``.

    Args:
        a: [B, ...].
        b: the same shape.

    Returns:
        [B], not negative.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = pair(a, b)
    return like((first - second).abs().flatten(1).amax(dim=1), a, b)


@metric
def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images in pixel units 0..1, in decibel.

    Args:
        a: [B, ...], within 0..1 (the data range is 1).
        b: the same shape.

    Returns:
        [B], ``-10 log10(mse)``; infinite for equal images.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = pair(a, b)
    return like(-10 * mse(first, second).log10(), a, b)
