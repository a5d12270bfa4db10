"""The loss, term by term, and what every registered objective owes the attack."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import trompe
from trompe.attacks import Keep, Observation, ReachMap, TopkMargin, Unlike, objectives
from trompe.attacks.loss import Loss
from trompe.attacks.objectives import Objective
from trompe.errors import TargetError, UsageError

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
SIDE = 6


def look(seed: int, count: int = 2) -> Observation:
    draw = torch.Generator().manual_seed(seed)
    x = SPACE.from_pixels(torch.rand(count, 3, SIDE, SIDE, generator=draw, dtype=torch.float64))
    relevance = torch.randn(count, 3, SIDE, SIDE, generator=draw, dtype=torch.float64)
    logits = torch.randn(count, 5, generator=draw, dtype=torch.float64)
    return Observation(x, trompe.heatmap(relevance), logits, relevance)


def explain(x: Tensor, target: Tensor) -> Tensor:
    """A stand-in for the original model's maps, of images and classes."""
    weight = 1 + target.to(x).view(-1, 1, 1, 1) * torch.linspace(0, 1, SIDE, dtype=x.dtype)
    return trompe.heatmap(x.square() * weight + 0.1)


def test_every_term_counts_with_its_weight() -> None:
    reference, now, aim = look(1), look(2), look(3).map
    loss = Loss(
        ReachMap(aim, relative=True),
        Keep("softmax"),
        SPACE,
        prefactors=(2.0, 30.0),
        relative=True,
        closeness=7.0,
    )
    for i in range(2):
        error = ((now.map - aim)[i] ** 2).mean() / ((reference.map - aim)[i] ** 2).mean()
        outputs = [torch.softmax(one.logits[i], 0) for one in (now, reference)]
        output = ((outputs[0] - outputs[1]) ** 2).sum()
        pixels = [SPACE.to_pixels(one.x)[i] for one in (now, reference)]
        change = ((pixels[0] - pixels[1]) ** 2).mean()
        for strictness in (1.0, 0.1):
            expected = 2 * error + 30 * strictness * output + 7 * change
            found = loss(now, reference, strictness)[i]
            torch.testing.assert_close(found, expected)
            number = torch.tensor(strictness, dtype=torch.float64)
            torch.testing.assert_close(loss(now, reference, number)[i], expected)
    torch.testing.assert_close(loss.score(now, reference), loss(now, reference, 1.0))
    free = dataclasses.replace(loss, keep=Keep("class"), closeness=0.0)
    torch.testing.assert_close(free(now, reference), 2 * loss.objective(now, reference))


def test_the_papers_has_no_price_on_the_change() -> None:
    reference, now, aim = look(1), look(2), look(3).map
    moved = dataclasses.replace(now, x=reference.x + 1)
    loss = Loss(ReachMap(aim), Keep(), SPACE)
    assert torch.equal(loss(now, reference), loss(moved, reference))


def test_reach_map_needs_a_map() -> None:
    with pytest.raises(TargetError, match="give target_map"):
        ReachMap()(look(1), look(2))


def made(name: str, reference: Observation) -> Objective:
    """The objective of a name, ready for the reference, whatever map it aims at."""
    kind = objectives[name]
    own = {field.name for field in dataclasses.fields(kind)}
    options = {"target": look(3, len(reference.map)).map} if "target" in own else {}
    return kind(**options).prepare(reference, explain)


def one_of(now: Observation, i: int) -> Observation:
    fields = dataclasses.fields(Observation)
    return Observation(*[getattr(now, field.name)[i : i + 1] for field in fields])


@pytest.mark.parametrize("name", objectives.names())
def test_an_objective_is_a_number_per_image_and_a_batch_is_its_images(name: str) -> None:
    reference, now = look(1, 3), look(2, 3)
    objective = made(name, reference)
    for found in (objective(now, reference), objective.score(now, reference)):
        assert found.shape == (3,)
        assert bool(torch.isfinite(found).all())
    measures = objective.measures(now, reference)
    assert measures
    from trompe.attacks.manipulation import sliced

    for i in range(3):
        own = sliced(objective, slice(i, i + 1))
        before, after = one_of(reference, i), one_of(now, i)
        torch.testing.assert_close(own(after, before)[0], objective(now, reference)[i])
        torch.testing.assert_close(own.score(after, before)[0], objective.score(now, reference)[i])
        for key, value in own.measures(after, before).items():
            torch.testing.assert_close(value[0], measures[key][i], equal_nan=True)


@pytest.mark.parametrize("name", objectives.names())
def test_an_objectives_derivative_is_that_of_finite_differences(name: str) -> None:
    reference = look(1)
    objective = made(name, reference)

    def of(relevance: Tensor) -> Tensor:
        now = Observation(reference.x, trompe.heatmap(relevance), reference.logits, relevance)
        return objective(now, reference)

    relevance = look(5).relevance.requires_grad_(True)
    (grad,) = torch.autograd.grad(of(relevance).sum(), relevance)
    assert float(grad.abs().max()) > 0
    draw = torch.Generator().manual_seed(9)
    for _ in range(3):
        way = torch.randn(relevance.shape, generator=draw, dtype=torch.float64)
        step = 1e-6
        with torch.no_grad():
            change = (of(relevance + step * way) - of(relevance - step * way)) / (2 * step)
        expected = (grad * way).flatten(1).sum(dim=1)
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", objectives.names())
@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_a_score_does_not_depend_on_the_scale_of_the_map(name: str, factor: float) -> None:
    reference, now = look(1), look(2)
    objective = made(name, reference)
    scaled = dataclasses.replace(
        now, relevance=factor * now.relevance, map=trompe.heatmap(factor * now.relevance)
    )
    torch.testing.assert_close(
        objective.score(scaled, reference), objective.score(now, reference), rtol=1e-9, atol=1e-12
    )


def test_top_k_margins_against_pairs_by_hand() -> None:
    reference, now = look(1, 1), look(2, 1)
    for margin in (0.0, 0.5):
        found = float(TopkMargin(k=5, margin=margin)(now, reference))
        before, after = reference.map.flatten().tolist(), now.map.flatten().tolist()
        order = sorted(range(len(before)), key=lambda i: -before[i])
        a = sorted((after[i] for i in order[:5]), reverse=True)
        b = sorted((after[i] for i in order[5:]), reverse=True)[:5]
        pairs = zip(a, reversed(b), strict=True)
        expected = sum(max(0.0, one - other + margin / len(after)) for one, other in pairs)
        assert found == pytest.approx(expected)
    aside = dataclasses.replace(now, map=reference.map.max() - reference.map)
    assert float(TopkMargin(k=5, margin=0.0)(aside, reference)) == 0
    assert float(TopkMargin(k=5).measures(aside, reference)["original_topk"]) == 0
    assert float(TopkMargin(k=5).measures(reference, reference)["original_topk"]) == 1
    with pytest.raises(UsageError, match=r"within 1..18"):
        TopkMargin(k=19)(now, reference)


def test_unlike_is_the_correlation() -> None:
    reference, now = look(1), look(2)
    pairs = zip(now.map, reference.map, strict=True)
    rows = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in pairs]
    torch.testing.assert_close(Unlike()(now, reference), torch.stack(rows))
