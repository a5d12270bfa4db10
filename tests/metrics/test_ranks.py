"""Rank metrics against counts over all pairs, sets and slow sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from trompe import metrics
from trompe.errors import UsageError


def maps(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Heat maps with ties."""
    values = torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed)) ** 3
    return (values * 20).round().double() / 100


A, B = maps(3, 7, 6, 1), maps(3, 7, 6, 2)


def naive_tau(a: list[float], b: list[float]) -> float:
    balance = untied_a = untied_b = 0
    for i in range(len(a)):
        for j in range(i):
            one, other = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            balance += one * other
            untied_a += one != 0
            untied_b += other != 0
    return balance / math.sqrt(untied_a * untied_b)


def test_kendall_is_tau_b_by_counting_pairs() -> None:
    for a, b, found in zip(A, B, metrics.kendall(A, B), strict=True):
        expected = naive_tau(a.flatten().tolist(), b.flatten().tolist())
        assert float(found) == pytest.approx(expected, abs=1e-12)
    assert metrics.kendall(A, A).tolist() == pytest.approx([1, 1, 1])
    assert metrics.kendall(A, -A).tolist() == pytest.approx([-1, -1, -1])
    assert metrics.kendall(A, torch.ones_like(A)).isnan().all()
    broken = A.clone()
    broken[1, 0, 0] = math.nan
    assert metrics.kendall(broken, B).isnan().tolist() == [False, True, False]


def order(heat: Tensor) -> list[int]:
    values = heat.flatten().tolist()
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99, None])
def test_rbo_is_the_sum_over_depths(p: float | None) -> None:
    persistence = 1 - 1 / 10 if p is None else p
    for a, b, found in zip(A, B, metrics.rbo(A, B, p=p), strict=True):
        first, second = order(a), order(b)
        total = sum(
            (1 - persistence)
            * persistence ** (d - 1)
            * (len(set(first[:d]) & set(second[:d])) / d if d <= 42 else 1)
            for d in range(1, 8000)
        )
        assert float(found) == pytest.approx(total, abs=1e-9)
    assert metrics.rbo(A, A, p=p).tolist() == pytest.approx([1, 1, 1])
    # What the tops have in common counts more than what the tails have.
    ranked = torch.arange(100.0).view(1, 10, 10)
    tops, tails = ranked.clone().flatten(), ranked.clone().flatten()
    tops[:10], tails[-10:] = tops[:10].flip(0), tails[-10:].flip(0)
    assert metrics.rbo(ranked, tops.view_as(ranked)) > metrics.rbo(ranked, tails.view_as(ranked))


def reach(chosen: set[tuple[int, int]], place: tuple[int, int], w: int) -> bool:
    return any(max(abs(r - place[0]), abs(c - place[1])) <= w for r, c in chosen)


def share(one: set[tuple[int, int]], other: set[tuple[int, int]], w: int) -> float:
    forth = sum(reach(other, place, w) for place in one) / len(one)
    back = sum(reach(one, place, w) for place in other) / len(other)
    return (forth + back) / 2


@pytest.mark.parametrize(("k", "w"), [(4, 0), (4, 1), (4, 2), (10, 1), (42, 1), (None, 1)])
def test_lens_topk_counts_what_is_near(k: int | None, w: int) -> None:
    count = 4 if k is None else k
    for a, b, found in zip(A, B, metrics.lens_topk(A, B, k=k, w=w), strict=True):
        one, other = ({divmod(i, 6) for i in order(heat)[:count]} for heat in (a, b))
        assert float(found) == pytest.approx(share(one, other, w), abs=1e-12)
    if w == 0:
        same = metrics.topk_intersection(A, B, k=count)
        torch.testing.assert_close(metrics.lens_topk(A, B, k=k, w=w), same)


def test_a_shift_by_one_pixel_is_no_loss_for_lens() -> None:
    heat = torch.zeros(1, 12, 12)
    heat[0, 2::4, 2::4] = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) + 1
    moved = heat.roll(1, dims=2)
    assert float(metrics.topk_intersection(heat, moved, k=9)) == 0
    assert float(metrics.lens_topk(heat, moved, k=9)) == 1
    assert float(metrics.topk_div(heat, moved, k=9)) == 1


def diverse(heat: Tensor, k: int, w: int) -> set[tuple[int, int]]:
    chosen: set[tuple[int, int]] = set()
    for i in order(heat):
        if len(chosen) < k and not reach(chosen, divmod(i, 6), w):
            chosen.add(divmod(i, 6))
    return chosen


@pytest.mark.parametrize(("k", "w"), [(4, 1), (3, 2), (6, 0), (40, 1), (None, 1)])
def test_topk_div_takes_entries_that_lie_apart(k: int | None, w: int) -> None:
    count = 1 if k is None else k
    for a, b, found in zip(A, B, metrics.topk_div(A, B, k=k, w=w), strict=True):
        one, other = (diverse(heat, count, w) for heat in (a, b))
        assert float(found) == pytest.approx(share(one, other, w), abs=1e-12)


@pytest.mark.parametrize("name", ["lens_topk", "topk_div"])
def test_impossible_settings(name: str) -> None:
    for k in (0, 43):
        with pytest.raises(UsageError, match=f"1..42 entries, not {k}"):
            metrics.metrics[name](A, B, k=k)
    with pytest.raises(UsageError, match="w must not be negative"):
        metrics.metrics[name](A, B, w=-1)
    for p in (0.0, 1.0):
        with pytest.raises(UsageError, match="p must be within"):
            metrics.rbo(A, B, p=p)


def test_cosine_and_dssim() -> None:
    a, b = A.numpy().reshape(3, -1), B.numpy().reshape(3, -1)
    expected = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    np.testing.assert_allclose(metrics.cosine(A, B).numpy(), expected, rtol=1e-12)
    assert metrics.cosine(A, 0 * A).isnan().all()
    torch.testing.assert_close(metrics.dssim(A, B), (1 - metrics.ssim(A, B)) / 2)
    assert metrics.dssim(A, A).tolist() == [0, 0, 0]
    x = A.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: metrics.cosine(t, B), x)


def test_concentration() -> None:
    for heat, found in zip(A, metrics.entropy(A), strict=True):
        entropy = scipy.stats.entropy(heat.flatten().numpy())
        assert float(found) == pytest.approx(entropy / math.log(42), abs=1e-12)
    for heat, found in zip(A, metrics.gini(A), strict=True):
        values = heat.flatten().numpy()
        differences = np.abs(values[:, None] - values[None]).mean()
        assert float(found) == pytest.approx(differences / (2 * values.mean()), abs=1e-12)
    one, flat = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.3)
    one[0, 1, 2] = 5.0
    assert float(metrics.entropy(one)) == 0
    assert float(metrics.entropy(flat)) == pytest.approx(1)
    assert float(metrics.gini(one)) == pytest.approx(15 / 16)
    assert float(metrics.gini(flat)) == pytest.approx(0, abs=1e-7)
    for measure in (metrics.entropy, metrics.gini):
        assert measure(torch.zeros(1, 4, 4)).isnan().all()
        torch.testing.assert_close(measure(A), measure(7 * A))
        with pytest.raises(UsageError, match="negative"):
            measure(-A)


def test_mass_in() -> None:
    mask = torch.zeros(7, 6)
    mask[2:4, :3] = 1
    expected = A[:, 2:4, :3].sum(dim=(1, 2)) / A.sum(dim=(1, 2))
    torch.testing.assert_close(metrics.mass_in(A, mask), expected)
    torch.testing.assert_close(metrics.mass_in(A, mask.bool()), expected)
    each = torch.stack([mask, 1 - mask, torch.ones_like(mask)])
    found = metrics.mass_in(A, each).tolist()
    assert found == pytest.approx([float(expected[0]), 1 - float(expected[1]), 1.0])
    with pytest.raises(UsageError, match="shapes"):
        metrics.mass_in(A, each[:2])
