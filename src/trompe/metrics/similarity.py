"""How alike two maps or images are: correlations, ranks, structure, the most relevant pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.errors import UsageError
from trompe.metrics.base import like, metric, pair


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the rows of [B, N]; not a number where a row is constant."""
    # A constant row is recognised by its entries: its deviations from a rounded mean are noise,
    # and would give a correlation of exactly 1 or -1.
    constant = (a == a[:, :1]).all(dim=1) | (b == b[:, :1]).all(dim=1)
    a = torch.nn.functional.normalize(a - a.mean(dim=1, keepdim=True), dim=1, eps=0)
    b = torch.nn.functional.normalize(b - b.mean(dim=1, keepdim=True), dim=1, eps=0)
    return torch.where(constant, torch.nan, (a * b).sum(dim=1).clamp(-1, 1))


_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_SMALLEST = 3  # side of an SSIM window, in pixels


@metric
def pcc(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation coefficient over all entries of each image (Dombrowski et al. 2019).

    Args:
        a: [B, ...], any units.
        b: the same shape.

    Returns:
        [B], within -1..1; not a number where an image is constant.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = pair(a, b)
    return like(_correlation(first.flatten(1), second.flatten(1)), a, b)


@metric
def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two images' entries, the mean not taken off.

    Args:
        a: [B, ...], any units.
        b: the same shape.

    Returns:
        [B], within -1..1 (0..1 for heat maps); not a number where an image is all zero.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = (torch.nn.functional.normalize(t.flatten(1), dim=1, eps=0) for t in pair(a, b))
    return like((first * second).sum(dim=1).clamp(-1, 1), a, b)


def _ranks(rows: Tensor) -> Tensor:
    """Ranks 1..N along each row of [B, N]; equal values share the average of their ranks."""
    ordered = rows.sort(dim=1).values
    below = torch.searchsorted(ordered, rows)
    not_above = torch.searchsorted(ordered, rows, right=True)
    return (below + not_above + 1).double() / 2


@metric
def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation over all entries of each image; ties get average ranks.

    Not differentiable.

    Args:
        a: [B, ...], any units.
        b: the same shape.

    Returns:
        [B], within -1..1; not a number where an image is constant or holds no number.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = (t.detach().flatten(1).contiguous() for t in pair(a, b))
    finite = ~(first.isnan() | second.isnan()).any(dim=1)
    return like(_correlation(_ranks(first), _ranks(second)).where(finite, torch.nan), a, b)


@metric
def ssim(a: Tensor, b: Tensor, *, data_range: float | None = None, sides: int = 2) -> Tensor:
    """Structural similarity, as scikit-image computes it (uniform window of 7 pixels a side).

    The data range sets SSIM's two stabilising constants. Images [B, C, H, W] are in pixel units
    0..1: the range is 1. The entries of a heat map [B, H, W] that sums to 1 are about 1 / (H W);
    with a range of 1 the constants would drown them and every two maps would be alike. The range
    of a pair of maps is therefore the largest minus the smallest entry of both together, which
    makes the value independent of the maps' common scale. For images with a side under 7 pixels
    the window is the largest odd one that fits. Not differentiable.

    Args:
        a: maps [B, H, W], or images [B, C, H, W] in pixel units 0..1; with ``sides`` 1 or 3 signals
            [B, C, T] or volumes [B, C, D, H, W], or their maps, which count as maps do.
        b: the same shape.
        data_range: another data range, in the units of ``a``, for every image.
        sides: how many sides an image has.

    Returns:
        [B], at most 1; exactly 1 for equal ones.

    Raises:
        UsageError: if the shapes do not go together, a side is under 3 pixels, or the data range
            is not positive.
    """
    if sides not in _POOLS:
        raise UsageError(f"ssim: sides must be 1, 2 or 3, not {sides}")
    first, second = pair(a, b, dims=(3, 4) if sides == 2 else (sides + 2,))
    window = min(7, *a.shape[-sides:])
    window -= 1 - window % 2
    if window < _SMALLEST:
        raise UsageError(
            f"ssim: an image of {' x '.join(map(str, a.shape[-sides:]))} pixels is smaller than "
            f"its smallest window, {' x '.join('3' * sides)}: compare by mse or pcc"
        )
    if data_range is not None and not data_range > 0:
        raise UsageError(f"ssim: data_range must be positive, not {data_range}")
    first, second = first.detach(), second.detach()
    if data_range is not None or (sides == 2 and a.dim() == 4):
        extent = first.new_full((len(first),), data_range or 1.0)
    else:
        both = torch.stack([first, second]).transpose(0, 1).flatten(1)
        extent = both.amax(dim=1) - both.amin(dim=1)
    values = _structural(first, second, window, extent, sides)
    # Where both are one and the same constant the formula is 0 / 0.
    return like(values.masked_fill(extent == 0, 1.0), a, b)


def _structural(a: Tensor, b: Tensor, window: int, extent: Tensor, sides: int) -> Tensor:
    """Mean SSIM over all windows that fit (Wang et al. 2004, eq. 13), of a data range each, [B].

    Variances are those of samples, divided by the window's number of pixels less one.
    """
    a, b = (t if t.dim() == sides + 2 else t.unsqueeze(1) for t in (a, b))

    def mean(of: Tensor) -> Tensor:
        return _POOLS[sides](of, window, stride=1)

    of_sample = window**sides / (window**sides - 1)
    mean_a, mean_b = mean(a), mean(b)
    variances = of_sample * (mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2)
    covariance = of_sample * (mean(a * b) - mean_a * mean_b)
    c1, c2 = ((k * extent.view(-1, 1, *[1] * sides)) ** 2 for k in (0.01, 0.03))
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(1).mean(dim=1)


@metric
def dssim(a: Tensor, b: Tensor, *, data_range: float | None = None) -> Tensor:
    """Structural dissimilarity, ``(1 - ssim) / 2``; the arguments and errors are those of ``ssim``.

    Args:
        a: maps [B, H, W], or images [B, C, H, W] in pixel units 0..1.
        b: the same shape.
        data_range: see ``ssim``.

    Returns:
        [B], 0 for equal ones, larger the less alike.
    """
    return (1 - ssim(a, b, data_range=data_range)) / 2


def ssim_or_nan(a: Tensor, b: Tensor, *, data_range: float | None = None, sides: int = 2) -> Tensor:
    """``ssim``, and NaN for what is no picture of at least 3 x 3 pixels, [B]."""
    fits = a.dim() in (3, 4) if sides == 2 else a.dim() == sides + 2
    if fits and min(a.shape[-sides:]) >= _SMALLEST:
        return ssim(a, b, data_range=data_range, sides=sides)
    return a.new_full((a.shape[0],), torch.nan)


@metric
def topk_intersection(a: Tensor, b: Tensor, *, k: int | None = None) -> Tensor:
    """The share of the k largest entries that two maps have in common (Ghorbani et al. 2019).

    Among equal entries the first in reading order counts as larger. Not differentiable.

    Args:
        a: [B, ...], any units.
        b: the same shape.
        k: how many entries; by default a tenth of them, at least one.

    Returns:
        [B], within 0..1.

    Raises:
        UsageError: if the shapes do not go together or k is not within 1..the number of entries.
    """
    first, second = (t.detach().flatten(1) for t in pair(a, b))
    size = first.shape[1]
    count = max(1, size // 10) if k is None else k
    if not 1 <= count <= size:
        raise UsageError(f"topk_intersection: k must be within 1..{size} entries, not {k}")
    chosen = []
    for entries in (first, second):
        order = entries.argsort(dim=1, descending=True, stable=True)
        chosen.append(torch.zeros_like(entries).scatter_(1, order[:, :count], 1.0))
    return like((chosen[0] * chosen[1]).sum(dim=1) / count, a, b)


@metric
def mass_centre_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance between the centres of mass of two heat maps, in pixels (Ghorbani et al. 2019).

    Args:
        a: heat maps [B, H, W], not negative; they need not sum to 1.
        b: the same shape.

    Returns:
        [B], in pixels; not a number where a map is all zero.

    Raises:
        UsageError: if the shapes do not go together or an entry is negative.
    """
    centres = []
    for mass in pair(a, b, dims=(3,)):
        if bool((mass < 0).any()):
            raise UsageError("mass_centre_distance: a map has negative entries: use heatmap(map)")
        rows = torch.arange(mass.shape[1], dtype=mass.dtype, device=mass.device)
        columns = torch.arange(mass.shape[2], dtype=mass.dtype, device=mass.device)
        moments = torch.stack([mass.sum(dim=2) @ rows, mass.sum(dim=1) @ columns], dim=1)
        centres.append(moments / mass.sum(dim=(1, 2)).unsqueeze(1))
    return like(torch.linalg.vector_norm(centres[0] - centres[1], dim=1), a, b)
