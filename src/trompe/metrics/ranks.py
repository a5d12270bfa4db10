"""How alike the order of two maps' entries is: Kendall's tau, top-k with room for shifts, RBO."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.errors import UsageError
from trompe.metrics.base import like, metric, pair


@metric
def kendall(a: Tensor, b: Tensor) -> Tensor:
    """Kendall's tau-b, the coefficient, over all entries of each image; ties count as ties.

    ``(concordant - discordant) / sqrt(untied in a * untied in b)`` over all pairs of entries. A
    coefficient, not a distance: 1 for equal orders. Not differentiable.

    Args:
        a: [B, ...], any units.
        b: the same shape.

    Returns:
        [B], within -1..1; not a number where an image is constant or holds no number.

    Raises:
        UsageError: if the shapes do not go together.
    """
    from scipy.stats import kendalltau

    first, second = (t.detach().flatten(1).cpu() for t in pair(a, b))
    values = [
        float("nan")
        if bool(one.isnan().any() | other.isnan().any())
        else float(kendalltau(one.numpy(), other.numpy(), method="asymptotic").statistic)
        for one, other in zip(first, second, strict=True)
    ]
    return like(torch.tensor(values, dtype=torch.float64, device=a.device), a, b)


@metric
def rbo(a: Tensor, b: Tensor, *, p: float | None = None) -> Tensor:
    """Rank-biased overlap of two maps' orders (Webber, Moffat and Zobel 2010, eq. 23 and 30).

    ``(1 - p) sum_d p^(d-1) A_d``, A_d the share that the d largest entries of both have in common,
    summed over all depths of the map and A_N = 1 beyond. The first ``1 / (1 - p)`` entries carry
    most of the weight. Among equal entries the first in reading order counts as larger. Not
    differentiable.

    Args:
        a: [B, ...], any units.
        b: the same shape.
        p: within 0..1, both excluded; by default such that a tenth of the entries, at least ten,
            carry most of the weight.

    Returns:
        [B], within 0..1; 1 for equal orders.

    Raises:
        UsageError: if the shapes do not go together or p is out of range.
    """
    first, second = (t.detach().flatten(1) for t in pair(a, b))
    size = first.shape[1]
    persistence = 1 - 1 / max(10, size // 10) if p is None else p
    if not 0 < persistence < 1:
        raise UsageError(f"rbo: p must be within 0..1, not {p}")
    # An entry belongs to both lists from the deeper one of its two places on.
    depth = torch.maximum(_places(first), _places(second))
    common = torch.zeros_like(first).scatter_add_(1, depth, torch.ones_like(first)).cumsum(dim=1)
    depths = torch.arange(1, size + 1, dtype=first.dtype, device=first.device)
    weights = (1 - persistence) * persistence ** (depths - 1)
    return like((weights * common / depths).sum(dim=1) + persistence**size, a, b)


@metric
def lens_topk(a: Tensor, b: Tensor, *, k: int | None = None, w: int = 1) -> Tensor:
    """The share of the k largest entries near one of the other map's (LENS, Kamath et al. 2024).

    An entry counts if one of the other map's k largest lies within w rows and w columns of it; the
    mean of both directions (LENS-precision and LENS-recall at k). With ``w=0`` it is
    ``topk_intersection``, which counts a shift by one pixel as a loss. The value of two unrelated
    maps rises with w: compare it with that of noise of the same size. Not differentiable.

    Args:
        a: maps [B, H, W], any units.
        b: the same shape.
        k: how many entries; by default a tenth of them, at least one.
        w: reach in pixels, 0 or more.

    Returns:
        [B], within 0..1.

    Raises:
        UsageError: if the shapes do not go together, or k or w is out of range.
    """
    first, second = (t.detach() for t in pair(a, b, dims=(3,)))
    count = _checked("lens_topk", first, k, w)
    sets = [_mask(_order(heat.flatten(1))[:, :count], heat.shape) for heat in (first, second)]
    return like(_near(sets[0], sets[1], w), a, b)


@metric
def topk_div(a: Tensor, b: Tensor, *, k: int | None = None, w: int = 1) -> Tensor:
    """``lens_topk`` of k large entries that lie apart (top-k-div, Kamath et al. 2024).

    Entries are taken from the largest on, leaving out those within w rows and w columns of one
    already taken, so that a few pixels of one spot do not make up all of the k. Where fewer than k
    fit into the map, all that do are taken. Not differentiable.

    Args:
        a: maps [B, H, W], any units.
        b: the same shape.
        k: how many entries; by default a tenth of what fits apart, at least one.
        w: reach in pixels, 0 or more.

    Returns:
        [B], within 0..1.

    Raises:
        UsageError: if the shapes do not go together, or k or w is out of range.
    """
    first, second = (t.detach() for t in pair(a, b, dims=(3,)))
    if k is None and w >= 0:
        k = max(1, first[0].numel() // (10 * (w + 1) ** 2))
    count = _checked("topk_div", first, k, w)
    sets = [torch.stack([_apart(one, count, w) for one in heat]) for heat in (first, second)]
    return like(_near(sets[0], sets[1], w), a, b)


def _order(rows: Tensor) -> Tensor:
    """Indices of each row from the largest entry to the smallest, [B, N]."""
    return rows.argsort(dim=1, descending=True, stable=True)


def _places(rows: Tensor) -> Tensor:
    """The place 0..N-1 of each entry in its row's order, [B, N]."""
    order = _order(rows)
    places = torch.arange(rows.shape[1], device=rows.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _checked(name: str, heat: Tensor, k: int | None, w: int) -> int:
    size = heat[0].numel() if len(heat) else 1
    count = max(1, size // 10) if k is None else k
    if not 1 <= count <= size:
        raise UsageError(f"{name}: k must be within 1..{size} entries, not {k}")
    if w < 0:
        raise UsageError(f"{name}: w must not be negative, not {w}")
    return count


def _mask(chosen: Tensor, shape: torch.Size) -> Tensor:
    """1 at the chosen entries, 0 elsewhere, [B, H, W]."""
    flat = torch.zeros(shape, dtype=torch.float64, device=chosen.device).flatten(1)
    return flat.scatter_(1, chosen, 1.0).view(shape)


def _near(one: Tensor, other: Tensor, w: int) -> Tensor:
    """The mean share of the entries of one set within reach of the other's, [B]."""
    shares = []
    for mine, yours in ((one, other), (other, one)):
        wide = F.max_pool2d(yours.unsqueeze(1), 2 * w + 1, stride=1, padding=w).squeeze(1)
        shares.append((mine * wide).sum(dim=(1, 2)) / mine.sum(dim=(1, 2)))
    return (shares[0] + shares[1]) / 2


def _apart(heat: Tensor, count: int, w: int) -> Tensor:
    """A map [H, W] with 1 at up to ``count`` large entries that lie apart."""
    height, width = heat.shape
    free = torch.ones(height, width, dtype=torch.bool)
    chosen = torch.zeros(height, width, dtype=torch.float64)
    for index in _order(heat.flatten().unsqueeze(0))[0].tolist():
        row, column = divmod(index, width)
        if free[row, column]:
            chosen[row, column] = 1.0
            free[max(0, row - w) : row + w + 1, max(0, column - w) : column + w + 1] = False
            count -= 1
            if count == 0:
                break
    return chosen.to(heat.device)
