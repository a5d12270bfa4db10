"""Attacks without derivatives: estimates, schedules, budgets, balls, and what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import Constraint, L2Ball, LInfBall, query_attack
from trompe.attacks.constraints import L1Ball, LowFrequency, Patch, Sparse
from trompe.attacks.objectives import Topk, Unlike
from trompe.attacks.queries import (
    NES,
    SPSA,
    Genetic,
    Queries,
    QueryAttacker,
    Spent,
    Square,
    query_attackers,
)
from trompe.attacks.queries.estimators import estimate
from trompe.attacks.queries.square import _windows
from trompe.errors import ExplanationError, UsageError
from trompe.types import InputSpace, heatmap

SHARED = Path(__file__).parents[2].parent / "shared"
SPACE = InputSpace()
X = 0.6 * nets.images(2, dtype=torch.float32)
QUICK: dict[str, QueryAttacker] = {
    "square": Square(),
    "nes": NES(pairs=2),
    "spsa": SPSA(pairs=2),
    "genetic": Genetic(population=6),
}
each = pytest.mark.parametrize("name", sorted(QUICK))


class Service:
    """An explainer without derivatives: numbers only, and every question noted."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        assert not x.requires_grad
        assert not torch.is_grad_enabled()
        self.seen.append(x.clone())
        with torch.enable_grad():
            inner = x.detach().clone().requires_grad_(True)
            (grad,) = torch.autograd.grad(model(inner).gather(1, target.view(-1, 1)).sum(), inner)
        return torch.from_numpy(np.abs(grad.numpy()).sum(axis=1))  # [B, H, W]


def test_every_attacker_is_tested_here() -> None:
    assert set(QUICK) == set(query_attackers.names())


@pytest.mark.parametrize("kind", [NES, SPSA])
def test_the_estimate_has_the_gradient_of_a_quadratic_as_its_mean(kind: Any) -> None:
    """Its variance falls as 1 / n; each image of the batch has its own gradient."""
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    curve = root @ root.t()
    x, slope = torch.randn(2, 3, 6, generator=draw, dtype=torch.float64)
    scale = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)  # of the channels

    def values(points: Tensor) -> Tensor:
        return (points @ curve * points).sum(dim=-1) / 2 + (points * slope).sum(dim=-1)

    exact = x @ curve + slope
    errors = []
    for count in (100, 1600):
        draws = []
        for seed in range(40):
            generator = torch.Generator().manual_seed(seed)
            along = kind().directions((count, 3, 6), generator)
            draws.append(estimate(values, x, along, 0.3 * scale))
        found = torch.stack(draws)
        spread = found.std(dim=0)
        # The mean lies within five standard errors of the gradient, in every entry.
        away = (found.mean(dim=0) - exact).abs() / (spread / 40**0.5)
        assert float(away.max()) < 5
        errors.append(float(spread.square().mean()))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.35)


def test_a_difference_that_is_no_number_counts_as_nothing() -> None:
    along = torch.ones(2, 1, 3, dtype=torch.float64)

    def values(points: Tensor) -> Tensor:
        total = points.sum(dim=-1)
        return torch.where(torch.arange(2).view(2, 1) == 0, torch.nan, total)

    found = estimate(values, torch.zeros(1, 3, dtype=torch.float64), along, 0.1)
    torch.testing.assert_close(found, torch.full((1, 3), 1.5, dtype=torch.float64))


def test_squares_shrink_by_the_published_schedule() -> None:
    square = Square()
    asked = (0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
    expected = [0.8, *(0.8 / 2**i for i in range(10))]
    assert [square.share(n, 10_000) for n in asked] == pytest.approx(expected)
    assert square.share(6, 1000) == pytest.approx(0.2)  # 60 of 10,000


def test_windows_are_squares_at_all_places() -> None:
    windows = _windows(400, 3, 5, 7, torch.Generator().manual_seed(0), X)
    assert windows.shape == (400, 1, 5, 7)
    assert windows.sum(dim=(1, 2, 3)).unique().tolist() == [9]
    corners = {tuple(w[0].nonzero()[0].tolist()) for w in windows}
    assert corners == {(top, left) for top in range(3) for left in range(5)}
    for window in windows[:20]:
        top, left = window[0].nonzero()[0].tolist()
        assert bool(window[0, top : top + 3, left : left + 3].all())


def test_square_search_begins_with_stripes_and_stays_on_the_balls_surface() -> None:
    service = Service()
    query_attack(nets.plain(), X, explainer=service, constraint=LInfBall(0.05), queries=20)
    pixels = [SPACE.to_pixels(x) - SPACE.to_pixels(X) for x in service.seen]
    stripes = pixels[1]
    assert float((stripes - stripes[:, :, :1]).abs().max()) < 1e-6  # the same in every row
    for change in pixels[1:-1]:
        assert float(change.abs().max()) <= 0.05 + 1e-6
    free = (SPACE.to_pixels(X) > 0.06) & (SPACE.to_pixels(X) < 0.94)
    torch.testing.assert_close(stripes[free].abs(), torch.full_like(stripes[free], 0.05))


CONSTRAINTS: dict[str, Constraint] = {
    "linf": LInfBall(0.05),
    "l2": L2Ball(0.5),
    "l1": L1Ball(3.0),
    "sparse": Sparse(0.1),
    "patch": Patch((0.0, 0.0, 0.5, 0.5)),
    "low_frequency": LowFrequency(0.5, 0.05),
}


@each
@pytest.mark.parametrize("ball", sorted(CONSTRAINTS))
def test_what_is_found_is_allowed_and_the_budget_is_kept(name: str, ball: str) -> None:
    constraint, service, model = CONSTRAINTS[ball], Service(), nets.plain()
    result = query_attack(
        model, X, explainer=service, constraint=constraint, queries=37, attacker=QUICK[name]
    )
    # Beside the budget: the original images before, and what was found after.
    assert len(service.seen) == result.provenance["asked"] + 2
    assert 30 <= result.provenance["asked"] <= 37
    violation = constraint.violation(result.x_adv, X, SPACE)
    assert float(violation.max()) <= 1e-6
    assert bool(result.class_kept.all())
    assert result.history["score"].shape == (result.iterations, 2)
    assert bool((result.history["score"].diff(dim=0) <= 0).all())  # the best so far
    if name == "square":  # every question is an allowed image, fit to be sent to a service
        for x in service.seen[1:-1]:
            assert float(constraint.violation(x, X, SPACE).max()) <= 1e-6


def asked_of_a_bowl(budget: int) -> Queries:
    """Questions whose answer is the squared distance from a place, small where it is near."""
    aim = X + 0.1

    def look(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = (x - aim).square().flatten(1).mean(dim=1)
        return value, value, torch.ones(len(x), dtype=torch.bool)

    first = torch.full((2,), 10.0)  # anything asked is better than the originals
    return Queries(look, budget, X, score=first, loss=first)


def test_no_question_is_asked_beyond_the_budget() -> None:
    asks = asked_of_a_bowl(5)
    assert asks.ask(X.expand(3, *X.shape)).cost.shape == (3, 2)
    with pytest.raises(Spent):
        asks.ask(X.expand(3, *X.shape))
    assert (asks.asked, asks.left) == (3, 2)
    assert asks.ask(X + 0.1).loss.tolist() == [0, 0]
    assert torch.equal(asks.best, X + 0.1)
    asks.ask(X + 0.1 - 1e-9, allowed=False)
    assert (asks.asked, asks.left) == (5, 0)


def test_a_genetic_search_gets_further_than_as_many_random_images() -> None:
    """By selection: without it, the best of as many random ones is what it finds."""
    constraint, asks = LInfBall(0.05), asked_of_a_bowl(400)
    Genetic(population=20).run(asks, X, constraint, SPACE, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    random = asked_of_a_bowl(400)
    for _ in range(400):
        random.ask(constraint.start(X, SPACE, draws))
    assert float((random.best_score - asks.best_score).mean()) > 1e-3


@each
def test_a_search_gets_further_than_where_it_starts(name: str) -> None:
    model = nets.plain()
    result = query_attack(
        model,
        X,
        explainer=Service(),
        objective=Unlike(),
        constraint=LInfBall(0.1),
        queries=150,
        attacker=QUICK[name],
    )
    found = trompe.metrics.pcc(result.map_original, result.map_adv)
    assert bool(result.success.all())
    assert float(found.mean()) < 0.9
    torch.testing.assert_close(result.history["score"][-1], found, atol=1e-5, rtol=0)


@each
def test_the_same_generator_gives_the_same_search(name: str) -> None:
    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return query_attack(
            nets.plain(), X, queries=30, attacker=QUICK[name], generator=generator
        ).x_adv

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@each
def test_an_image_whose_class_changes_is_never_taken(name: str) -> None:
    """A network whose answer flips at the smallest change of brightness upwards."""

    class Touchy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            side = 1e4 * (x.mean(dim=(1, 2, 3)) - means)
            return torch.stack([-side, side], dim=1) + x[:, 0, :2, 0] ** 2

    means = X.mean(dim=(1, 2, 3)) + 1e-3
    model = Touchy()
    result = query_attack(
        model, X, queries=40, attacker=QUICK[name], objective=Unlike(), constraint=LInfBall(0.1)
    )
    assert bool(result.class_kept.all())
    assert bool((result.x_adv.mean(dim=(1, 2, 3)) < means)[result.found].all())


def test_an_interruption_keeps_what_there_is() -> None:
    def stop(asked: int, budget: int, numbers: Any) -> None:
        if asked == 12:
            raise KeyboardInterrupt

    result = query_attack(nets.plain(), X, queries=50, progress=stop)
    assert (result.stopped, result.iterations) == ("interrupted", 12)
    assert result.history["score"].shape == (12, 2)


def test_maps_that_are_no_numbers_are_no_find_and_no_crash() -> None:
    calls = []

    def broken(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        good = 1.0 if len(calls) in (1, 22) else float("nan")
        return good * (x.abs() + 0.1)

    for attacker in (Square(), NES(2), Genetic(6)):
        calls.clear()
        result = query_attack(nets.plain(), X, explainer=broken, queries=20, attacker=attacker)
        assert not bool(result.found.any())
    with pytest.raises(ExplanationError, match="all zero"):
        query_attack(nets.plain(), X, explainer=lambda m, x, t: 0 * x)


def test_targeted_objectives_and_what_does_not_fit() -> None:
    aim = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    result = query_attack(nets.plain(), X, aim, objective="reach_map", queries=60)
    before, after = (
        trompe.metrics.mse(heat, result.aim) for heat in (result.map_original, result.map_adv)
    )
    assert bool((after < before).all())
    for options, message in (
        ({"queries": 0}, "queries must be at least 1"),
        ({"attacker": "hill"}, "unknown query attacker 'hill'"),
        ({"attacker": Square}, "call it"),
        ({"constraint": 0.1}, "constraint takes a Constraint"),
    ):
        with pytest.raises(UsageError, match=message):
            query_attack(nets.plain(), X, **options)  # type: ignore[arg-type]
    for make in (
        lambda: Square(p_init=0.0),
        lambda: NES(pairs=0),
        lambda: SPSA(size=0.0),
        lambda: Genetic(population=3),
    ):
        with pytest.raises(UsageError):
            make()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared: a network and images")
def test_square_search_is_at_chance_after_a_thousand_maps() -> None:
    """Top-100 of 32 x 32 pixels within 8/255: chance is 0.098."""
    from safetensors.torch import load_file

    from trompe.zoo.npz_images import NpzImages
    from trompe.zoo.resnet20 import resnet20

    model = resnet20()
    model.load_state_dict(load_file(SHARED / "models" / "resnet20_cifar10.safetensors"))
    model.eval().requires_grad_(False)
    photos = NpzImages(SHARED / "data" / "cifar10_test.npz")
    x = SPACE.from_pixels(torch.stack([photos[i][0] for i in range(4)]))
    result = query_attack(model, x, objective=Topk(100), queries=1000)
    kept = trompe.metrics.topk_intersection(result.map_original, result.map_adv, k=100)
    assert bool(result.success.all())
    assert float(kept.mean()) <= 0.12
    heat = heatmap(trompe.explainer("gradient")(model, result.x_adv, result.target_class))
    torch.testing.assert_close(heat, result.map_adv)
    assert float(LInfBall(8 / 255).violation(result.x_adv, x, SPACE).max()) <= 1e-6
