"""Certificates from noisy copies, on explainers of few dimensions whose truth is known exactly.

A map that is constant on both sides of a half space is the worst case of every bound: what is
certified must stay below the truth there, and come close to it with many samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

import trompe
from trompe.certificates.noise_bounds import SHARES, NoiseBounds
from trompe.certificates.noise_certificate import NoiseCertificate
from trompe.certificates.noise_statistics import Counted, Pilot
from trompe.certificates.noisy_maps import NoisyMaps
from trompe.errors import UsageError

SIGMA = 0.5
MAPS = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2]], dtype=torch.float64)


class Half(nn.Module):
    """Class 0 where the first coordinate is below an edge."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        away = x.flatten(1)[:, 0] - self.edge
        return torch.stack([-away, away], dim=1)


def certify(explain: Any, x: Tensor, radius: Any, net: nn.Module | None = None, **options: Any):  # type: ignore[no-untyped-def]
    settings = {"sigma": SIGMA, "samples": 2000, "batch_size": 1000, **options}
    return trompe.certify(
        net or Half(10.0), x, method="noise", explainer=explain, radius=radius, **settings
    )


def two_maps(edge: float) -> Any:
    """One map below an edge of the first coordinate, another beyond."""
    return lambda model, z, target: torch.where(z[:, :1] < edge, MAPS[0], MAPS[1])


def standardise(maps: Tensor) -> Tensor:
    centred = maps - maps.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True)


def correlation(p: float, q: float) -> float:
    """The PCC of the smoothed standardised maps where the first map has chance p, and q."""
    one, other = standardise(MAPS)
    mixed = [share * one + (1 - share) * other for share in (p, q)]
    return float(mixed[0] @ mixed[1] / mixed[0].norm() / mixed[1].norm())


@pytest.mark.parametrize("edge", [-0.3, 0.0, 0.6])
def test_a_half_space_moves_as_far_as_is_certified(edge: float) -> None:
    radii = [0.05, 0.2, 0.5]
    found = certify(two_maps(edge), torch.zeros(1, 3).double(), radii, samples=30_000, top=0.25)
    p = norm.cdf(edge / SIGMA)
    for index, radius in enumerate(radii):
        ends = [norm.cdf((edge + side * radius) / SIGMA) for side in (-1, 1)]
        worst = min(correlation(p, q) for q in ends)
        assert float(found.pcc[0, index]) <= worst
        moved = max(abs(p - q) for q in ends) * float((MAPS[0] - MAPS[1]).abs().sum())
        assert moved <= float(found.heatmap_l1[0, index]) <= moved * 1.25 + 0.01


@pytest.mark.parametrize(("edge", "radius"), [(0.0, 0.5), (0.6, 0.5), (0.2, 0.25)])
def test_the_correlation_is_that_of_the_formula_in_the_limit(edge: float, radius: float) -> None:
    """``sqrt(1 - (T / A)^2)`` from the true distribution, T by trying functions of ``<d, u>``."""
    p, r = norm.cdf(edge / SIGMA), radius / SIGMA
    one, other = standardise(MAPS)
    mean = p * one + (1 - p) * other
    w = mean / mean.norm()
    across = one - (one @ w) * w
    d = across / across.norm()
    variance = p * float(d @ one) ** 2 + (1 - p) * float(d @ other) ** 2
    t = np.linspace(-12, 12, 200_001)
    weight, away = norm.pdf(t) * (t[1] - t[0]), np.exp(r * t - r * r / 2) - 1
    low, high = 1e-6, 1e6
    for _ in range(60):
        mu = math.sqrt(low * high)
        g = np.clip(away / (2 * mu), -1, 1)
        low, high = (mu, high) if (g * g * weight).sum() > variance else (low, mu)
    shift = (g * away * weight).sum()
    ends = sorted([(float(one @ w), p), (float(other @ w), 1 - p)])
    along = ends[0][0] + (ends[1][0] - ends[0][0]) * norm.cdf(norm.ppf(ends[1][1]) - r)
    truth = math.sqrt(1 - (shift / along) ** 2)
    found = certify(two_maps(edge), torch.zeros(1, 3).double(), radius, samples=60_000)
    assert 1 - truth <= 1 - float(found.pcc[0, 0]) <= 1.2 * (1 - truth)


def test_the_label_and_the_votes_change_where_the_half_space_says() -> None:
    edge = 0.4
    x = torch.zeros(1, 3).double()
    swapped = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]).double()
    radii = [0.85 * edge, 1.01 * edge]
    found = certify(
        lambda model, z, target: torch.where(z[:, :1] < edge, swapped[0], swapped[1]),
        x,
        radii,
        net=Half(edge),
        samples=20_000,
        top=0.34,
    )
    assert 0.9 * edge <= float(found.label_radius) <= edge
    assert found.label_kept.tolist() == [[True, False]]
    assert found.votes[0, 0].tolist() == [1, -1, -1]
    assert found.votes[0, 1].tolist() == [0, 0, -1]
    assert found.members[0, 0].tolist() == [True, False, False]
    assert not found.members[0, 1].any()
    assert found.overlap.tolist() == [[1.0, 0.0]]
    assert found.iou.tolist() == [[1.0, 0.0]]
    assert (found.pilot, found.samples) == (500, (19_500,))
    share = norm.cdf(edge / SIGMA)
    assert float(found.label_share) == pytest.approx(share, abs=0.02)
    assert float(found.smoothed[0, 0]) == pytest.approx(0.2 + 0.5 * share, abs=0.01)


class Quadrants:
    """A map for each of four quadrants: all expectations are known at every point, exactly.

    Args:
        seed: Of the maps, the edges and the radius.
    """

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        table = draw.dirichlet(np.full(6, draw.choice([0.3, 1.0, 5.0])), size=4)
        if seed % 2:  # maps that share a large part
            table = 0.7 * table[:1] + 0.3 * table
        self.table, self.edges = torch.from_numpy(table), draw.normal(0, 0.5, 2)
        self.radius = float(SIGMA * draw.choice([0.1, 0.4, 1.0]))

    def __call__(self, model: nn.Module, z: Tensor, target: Tensor) -> Tensor:
        beyond = z > torch.from_numpy(self.edges)
        return self.table[beyond[:, 0].long() + 2 * beyond[:, 1].long()]

    def chances(self, at: np.ndarray) -> np.ndarray:
        """Of the four maps, under noise around a point."""
        one, other = norm.cdf((at - self.edges) / SIGMA)
        near, far = (1 - one, one), (1 - other, other)
        return np.array([near[0] * far[0], near[1] * far[0], near[0] * far[1], near[1] * far[1]])

    def points(self) -> list[np.ndarray]:
        """Some of the ball, the image itself first."""
        angles = np.linspace(0, 2 * math.pi, 33)
        ring = [self.radius * np.array([math.cos(angle), math.sin(angle)]) for angle in angles]
        return [np.zeros(2), *ring, *(0.5 * point for point in ring)]

    def exceeded(self, found: NoiseCertificate) -> dict[str, bool]:
        """Which statements are false at one of these points."""
        chances = np.stack([self.chances(point) for point in self.points()])
        u = chances @ standardise(self.table).numpy()
        u = u / np.linalg.norm(u, axis=1, keepdims=True)
        maps = chances @ self.table.numpy()
        largest = np.argsort(-self.table.numpy(), axis=1)[:, : found.top]
        marks = np.zeros((4, 6))
        np.put_along_axis(marks, largest, 1.0, axis=1)
        vote = chances @ marks
        rank = (vote[:, None, :] >= vote[:, :, None] - 1e-12).sum(axis=2)
        members, votes = found.members[0, 0].numpy(), found.votes[0, 0].numpy()
        label = chances[:, ::2].sum(axis=1) if int(found.label) == 0 else chances[:, 1::2].sum(1)
        return {
            "pcc": float(found.pcc[0, 0]) > (u @ u[0]).min() + 1e-12,
            "l1": float(found.heatmap_l1[0, 0]) < np.abs(maps - maps[0]).sum(axis=1).max(),
            "members": bool((rank[:, members] > found.top).any()),
            "votes": bool((vote[:, votes > 0] < 0.5).any() or (vote[:, votes < 0] > 0.5).any()),
            "label": bool(found.label_kept) and bool((label < 0.5).any()),
        }


def exceeded(seeds: range, samples: int) -> dict[str, int]:
    """How often each kind of statement is false, at a confidence of 0.8."""
    count: dict[str, int] = {}
    for seed in seeds:
        truth = Quadrants(seed)
        found = certify(
            truth,
            torch.zeros(1, 2).double(),
            truth.radius,
            net=Half(float(truth.edges[0])),
            samples=samples,
            confidence=0.8,
            top=0.34,
            generator=torch.Generator().manual_seed(seed),
        )
        for kind, wrong in truth.exceeded(found).items():
            count[kind] = count.get(kind, 0) + wrong
    return count


def test_a_bound_is_exceeded_as_rarely_as_stated() -> None:
    runs = 100
    for kind, wrong in exceeded(range(runs), 300).items():
        assert binomtest(wrong, runs, 0.2, alternative="greater").pvalue > 1e-3, kind


@pytest.mark.slow
@pytest.mark.parametrize("samples", [60, 300, 1000])
def test_a_bound_is_exceeded_as_rarely_as_stated_on_many_explainers(samples: int) -> None:
    runs = 1000
    for kind, wrong in exceeded(range(1000, 1000 + runs), samples).items():
        assert binomtest(wrong, runs, 0.2, alternative="greater").pvalue > 1e-3, kind


def test_the_harness_would_notice() -> None:
    """Bounds without allowance for the samples, of a ball of half the radius, are found false."""
    wrong: dict[str, int] = {}
    for seed in range(40):
        truth = Quadrants(seed)
        found = certify(
            truth,
            torch.zeros(1, 2).double(),
            truth.radius / 2,
            net=Half(float(truth.edges[0])),
            samples=4000,
            confidence=1e-6,
            top=0.34,
        )
        for kind, lie in truth.exceeded(found).items():
            wrong[kind] = wrong.get(kind, 0) + lie
    assert all(count > 0 for count in wrong.values()), wrong


def drawn(shares: Tensor, n: int, generator: torch.Generator, direction: Tensor) -> Counted:
    """Counts over n maps, each drawn from the rows of a table with equal chance."""
    pilot = Pilot(
        direction=direction,
        along=torch.linspace(-1, 1, 9).double(),
        centre=shares.mean(0),
        away=torch.linspace(0, 2, 5).double(),
        label=0,
        top=1,
    )
    counted = Counted(pilot, 0)
    rows = torch.randint(len(shares), (n,), generator=generator)
    counted.add(NoisyMaps(shares[rows], torch.zeros(n, dtype=torch.long)))
    return counted


def test_the_variance_across_the_mean_map_is_above_the_truth_as_often_as_stated() -> None:
    """Maps drawn from a table: the covariance, its part across the mean and its norm, exactly."""
    torch.manual_seed(0)
    shares = torch.softmax(torch.randn(6, 8).double(), dim=1)
    u = standardise(shares)
    mean = u.mean(0) / u.mean(0).norm()
    across = u - (u @ mean)[:, None] * mean
    truth = float(torch.linalg.eigvalsh(across.mT @ across / len(u))[-1])
    generator, runs, n = torch.Generator().manual_seed(0), 400, 150
    confidence, found = 0.2, []
    for _ in range(runs):
        counted = drawn(shares, n, generator, mean)
        found.append(NoiseBounds(counted, confidence, 1).variance)
    alpha = (1 - confidence) * (SHARES["spread"] + SHARES["drift"])
    wrong = sum(value < truth for value in found)
    assert binomtest(wrong, runs, alpha, alternative="greater").pvalue > 1e-3
    counted = drawn(shares, 400_000, generator, mean)
    whole = float(torch.linalg.eigvalsh(torch.cov(u.mT, correction=0))[-1])
    assert whole <= NoiseBounds(counted, 0.9, 1).variance <= 1.03 * whole


def test_along_the_direction_the_expectation_is_above_its_bound_as_often_as_stated() -> None:
    torch.manual_seed(1)
    shares = torch.softmax(torch.randn(6, 8).double(), dim=1)
    u = standardise(shares)
    mean = u.mean(0) / u.mean(0).norm()
    c = u @ mean
    levels = torch.linspace(-1, 1, 9).double()
    # Rounded down to the thresholds, which is all that is counted.
    truth = float(torch.stack([levels[levels <= value].max() for value in c]).mean())
    generator, runs = torch.Generator().manual_seed(0), 300
    found = [
        NoiseBounds(drawn(shares, 100, generator, mean), 0.2, 1).along_after(0.0)
        for _ in range(runs)
    ]
    wrong = sum(value > truth for value in found)
    assert binomtest(wrong, runs, 0.8 * SHARES["along"], alternative="greater").pvalue > 1e-3
    many = NoiseBounds(drawn(shares, 400_000, generator, mean), 0.9, 1).along_after(0.0)
    assert truth - 0.01 <= many <= truth


def test_the_chances_of_being_wrong_add_up_to_the_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0, abs=1e-12)


def test_a_linear_model_is_certified_wholly() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    x = torch.rand(2, 3, 16, 16)
    found = certify("gradient", x, [0.05, 0.25], net=net, pool=4, top=0.25)
    assert (found.pcc > 0.99).all()
    assert (found.overlap == 1).all()
    assert (found.votes != 0).all()
    assert (found.heatmap_l1 < 0.05).all()
    assert (found.pcc_to_plain > 1 - 1e-6).all()
    assert not found.void.any()


def test_a_random_map_is_not_certified_at_all() -> None:
    torch.manual_seed(0)
    mix = 300 * torch.randn(3, 20).double()
    found = certify(
        lambda model, z, target: torch.sin(z @ mix).square(),
        torch.zeros(1, 3).double(),
        [0.01, 0.25],
    )
    assert found.void.all()
    assert (found.pcc == -1).all()
    assert not found.members.any()
    assert not (found.votes > 0).any()


def test_auto_takes_as_many_copies_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that hardly moves needs few, a random one takes all; the chances are shared out."""
    taken = []

    class Recorded(NoiseBounds):
        def __init__(self, counted: Counted, confidence: float, radii: int) -> None:
            taken.append(confidence)
            super().__init__(counted, confidence, radii)

    monkeypatch.setattr("trompe.certificates.noisy_image.NoiseBounds", Recorded)
    torch.manual_seed(0)
    mix = 300 * torch.randn(3, 20).double()

    def explain(model: nn.Module, z: Tensor, target: Tensor) -> Tensor:
        return torch.where(target[:, None] == 0, MAPS[0].repeat(5), torch.sin(z @ mix).square())

    found = certify(
        explain,
        torch.zeros(2, 3).double(),
        [0.05, 0.1],
        samples="auto",
        confidence=0.9,
        target=torch.tensor([0, 1]),
    )
    assert found.samples == (450, 7950)
    assert taken == [pytest.approx(1 - 0.1 / 5)] * 6
    assert (found.pcc[0] > 0.9).all()
    assert found.void[1].all()
    assert found.confidence == 0.9


def test_constant_and_broken_maps_mark_nothing_and_certify_nothing() -> None:
    for value in (1.0, 0.0, float("nan")):
        found = certify(
            lambda model, z, target, value=value: torch.full((len(z), 10), value).double(),
            torch.zeros(1, 3).double(),
            0.1,
        )
        assert found.void.all()
        assert not found.members.any()
        assert not (found.votes > 0).any()


def test_pixel_units_squares_and_batches() -> None:
    """An explainer of pixels sees the same noise whatever the normalisation of the model."""
    space = trompe.InputSpace(mean=(0.2, 0.5, 0.4), std=(0.5, 0.25, 0.125))
    pixels = torch.rand(1, 3, 9, 9).double()
    most = []

    def explain(model: nn.Module, z: Tensor, target: Tensor) -> Tensor:
        most.append(len(z))
        return z.square() + (z > 0.5).double()

    def of_normalised(model: nn.Module, z: Tensor, target: Tensor) -> Tensor:
        return explain(model, space.to_pixels(z), target)

    settings = {"samples": 300, "batch_size": 64, "pool": 4}
    plain = certify(explain, pixels, [0.1, 0.2], **settings)
    normalised = certify(
        of_normalised, space.from_pixels(pixels), [0.1, 0.2], input_space=space, **settings
    )
    assert torch.allclose(plain.pcc, normalised.pcc, atol=1e-9)
    assert torch.allclose(plain.smoothed, normalised.smoothed, atol=1e-9)
    assert plain.smoothed.shape == (1, 3, 3)
    assert plain.members.shape == plain.votes.shape == (1, 2, 3, 3)
    assert float(plain.smoothed.sum()) == pytest.approx(1.0)
    assert max(most) == 64
    assert sum(most) == 2 * (300 + 1)
    assert plain.samples == (300 - plain.pilot,)
    cube = certify(explain, pixels, 0.1 / math.sqrt(243), norm="linf", **settings)
    assert torch.allclose(cube.pcc[:, 0], plain.pcc[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["gradient", "lrp", "integrated_grad", "grad_cam"])
def test_any_method_by_name(name: str) -> None:
    loaded = trompe.load_model("tiny-resnet", "random", size=32)
    x = torch.rand(1, 3, 32, 32)
    seen = []
    found = trompe.certify(
        loaded.model, x, method="noise", explainer=name, radius=[0.01, 0.1], samples=40,
        progress=lambda done, total, numbers: seen.append((done, total)),
        input_space=loaded.input_space,
    )  # fmt: skip
    assert isinstance(found, NoiseCertificate)
    assert found.pcc.shape == (1, 2)
    assert (found.pcc[:, 0] >= found.pcc[:, 1]).all()
    assert seen[-1] == (40, 40)
    method = trompe.explainer(name)
    alone = trompe.certify(
        loaded.model, x, method="noise", explainer=lambda net, z, target: method(net, z, target),
        radius=[0.01, 0.1], samples=40, input_space=loaded.input_space,
    )  # fmt: skip
    assert torch.equal(alone.pcc, found.pcc)
    assert torch.equal(alone.smoothed, found.smoothed)
    assert float(alone.label_share) == float(found.label_share)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.0},
        {"samples": 10},
        {"confidence": 1.0},
        {"top": 0.0},
        {"pool": 0},
        {"pilot": 2000},
        {"batch_size": 0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_settings_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        certify(two_maps(0.0), torch.zeros(1, 3).double(), 0.1, **options)


def test_what_cannot_be_certified_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        certify(two_maps(0.0), torch.zeros(1, 3).double(), [])
    with pytest.raises(UsageError, match="pool"):
        certify("gradient", torch.zeros(1, 3, 65, 65), 0.1, net=Half(0.0), pool=1)
    with pytest.raises(UsageError, match="smaller pool"):
        certify("gradient", torch.zeros(1, 3, 8, 8), 0.1, net=Half(0.0), pool=8)
    with pytest.raises(UsageError, match="explainer returns"):
        certify(lambda model, z, target: z.sum(), torch.zeros(1, 3).double(), 0.1)


def test_disjoint_maps_move_as_far_as_total_variation_allows() -> None:
    """Half way on the other side of the edge: the change is ``2 (2 Phi(r / 2) - 1)``, exactly."""
    shares, radius = torch.eye(4).double()[:2], 0.4
    found = certify(
        lambda model, z, target: torch.where(z[:, :1] < radius / 2, shares[0], shares[1]),
        torch.zeros(1, 3).double(),
        radius,
    )
    truth = 2 * (2 * norm.cdf(radius / SIGMA / 2) - 1)
    assert truth <= float(found.heatmap_l1) <= truth * (1 + 1e-6)


def test_along_the_direction_a_half_space_moves_as_far_as_is_said() -> None:
    """Two maps of equal chance: ``<u, w>`` falls to its lower value with chance ``Phi(r)``."""
    u = standardise(MAPS)
    w = u[0] - 0.2 * u[1]
    w = w / w.norm()
    low, high = sorted((u @ w).tolist())
    levels = torch.tensor([-1.0, low - 1e-9, high - 1e-9], dtype=torch.float64)
    pilot = Pilot(w, levels, MAPS.mean(0), torch.tensor([0.5]).double(), label=0, top=1)
    counted, n = Counted(pilot, 0), 200_000
    for start in range(0, n, 50_000):
        rows = torch.arange(start, start + 50_000) % 2
        counted.add(NoisyMaps(MAPS[rows], torch.zeros(len(rows), dtype=torch.long)))
    bounds = NoiseBounds(counted, 0.9, 1)
    for r in (0.1, 0.5, 1.0):
        truth = low + (high - low) * norm.cdf(-r)
        assert truth - 0.004 <= bounds.along_after(r) <= truth


def test_every_chance_of_being_wrong_is_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds at the image itself, recomputed from the counts with SciPy."""
    torch.manual_seed(2)
    shares = torch.softmax(torch.randn(5, 8).double(), dim=1)
    direction = torch.nn.functional.normalize(standardise(shares).mean(0), dim=0)
    n, confidence = 60, 0.95
    counted = drawn(shares, n, torch.Generator().manual_seed(3), direction)
    counted.label = 57
    bounds = NoiseBounds(counted, confidence, 1)
    alpha = {name: (1 - confidence) * share for name, share in SHARES.items()}

    def low(hits: Tensor, chance: float) -> list[float]:
        return [
            binomtest(int(k), n).proportion_ci(1 - 2 * chance, method="exact").low for k in hits
        ]

    def high(hits: Tensor, chance: float) -> list[float]:
        return [
            binomtest(int(k), n).proportion_ci(1 - 2 * chance, method="exact").high for k in hits
        ]

    near = {"rel": 1e-6, "abs": 1e-9}
    assert bounds.low.tolist() == pytest.approx(low(counted.marked, alpha["marked"] / 16), **near)
    assert bounds.high.tolist() == pytest.approx(high(counted.marked, alpha["marked"] / 16), **near)
    assert bounds.away.tolist() == pytest.approx(high(counted.away, alpha["away"] / 5), **near)
    assert bounds.along[:1].tolist() == pytest.approx(low(counted.along[:1], alpha["along"] / 2))
    rest = low(counted.along[1:], alpha["along"] / 16)
    assert bounds.along[1:].tolist() == pytest.approx(rest, **near)
    assert [bounds.label] == pytest.approx(low(torch.tensor([57]), alpha["label"]), **near)
    seen = []
    monkeypatch.setattr("trompe.certificates.binomial.holm", lambda p, a: seen.append(a) or p < a)
    NoiseBounds(counted, confidence, 4).votes(0.3)
    assert seen == [pytest.approx(alpha["votes"] / 4)]
    # lambda solves: KL(spread + drift(lambda)^2, lambda) = ln(1 / alpha) / n
    s, found = math.log(2 / alpha["drift"]), bounds.variance
    drift = math.sqrt(2 * found * s / n) + s / (3 * n)
    mean = counted.spread + drift**2
    divergence = mean * math.log(mean / found) + (1 - mean) * math.log((1 - mean) / (1 - found))
    assert n * divergence == pytest.approx(math.log(1 / alpha["spread"]), rel=1e-4)
