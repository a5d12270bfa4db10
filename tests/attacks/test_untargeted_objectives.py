"""The objectives of the worst case: formulas by loops, starts, and attacks that get there."""

from __future__ import annotations

import dataclasses

import nets
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import LInfBall, Observation, SideBySide, preset_for
from trompe.attacks.objectives import (
    Avoid,
    MassCentre,
    Objective,
    Region,
    Several,
    Shift,
    Swap,
    Topk,
    TopkMargin,
    Unlike,
)
from trompe.errors import UsageError
from trompe.metrics import mass_centre_distance, pcc

SIDE = 8


def look(seed: int, count: int = 2, wide: int = 1) -> Observation:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, SIDE, SIDE, generator=draw, dtype=torch.float64)
    relevance = torch.randn(count, 3, SIDE, wide * SIDE, generator=draw, dtype=torch.float64)
    logits = torch.randn(count, 5, generator=draw, dtype=torch.float64)
    return Observation(x, trompe.heatmap(relevance), logits, relevance)


NOW, REFERENCE = look(1), look(2)


def largest(heat: Tensor, k: int) -> list[int]:
    values = heat.flatten().tolist()
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


@pytest.mark.parametrize("k", [1, 6, 64])
def test_topk_is_the_share_that_is_left(k: int) -> None:
    objective = Topk(k)
    torch.testing.assert_close(objective(REFERENCE, REFERENCE), torch.ones(2).double())
    for i in range(2):
        before, after = REFERENCE.map[i], NOW.map[i]
        chosen = largest(before, k)
        left = sum(float(after.flatten()[j]) for j in chosen)
        expected = left / sum(float(before.flatten()[j]) for j in chosen)
        assert float(objective(NOW, REFERENCE)[i]) == pytest.approx(expected)
        kept = len(set(chosen) & set(largest(after, k))) / k
        score = float(objective.score(NOW, REFERENCE)[i])
        assert kept < score <= kept + 0.5 / k  # the tie-break is less than one pixel
        assert float(objective.measures(NOW, REFERENCE)["topk_kept"][i]) == pytest.approx(kept)
    assert float(Topk().score(NOW, REFERENCE)[0]) == float(Topk(6).score(NOW, REFERENCE)[0])


def centres(heat: Tensor) -> np.ndarray:
    return np.array([scipy.ndimage.center_of_mass(one.numpy()) for one in heat])


def test_mass_centre_moves_to_the_farthest_corner() -> None:
    objective = MassCentre()
    origin = centres(REFERENCE.map)
    corners = np.array([(r, c) for r in (0, 7) for c in (0, 7)], dtype=float)
    for i in range(2):
        away = np.linalg.norm(corners - origin[i], axis=1)
        corner = corners[away.argmax()]
        np.testing.assert_allclose(objective.place(REFERENCE)[i].numpy(), corner)
        after = np.linalg.norm(centres(NOW.map)[i] - corner)
        expected = (after / away.max()) ** 2
        assert float(objective(NOW, REFERENCE)[i]) == pytest.approx(expected)
        moved = np.linalg.norm(centres(NOW.map)[i] - origin[i])
        assert float(objective.score(NOW, REFERENCE)[i]) == pytest.approx(-moved / away.max())
    moved_by = objective.measures(NOW, REFERENCE)["centre_moved"]
    torch.testing.assert_close(moved_by, mass_centre_distance(NOW.map, REFERENCE.map))
    aimed = MassCentre(towards=(0.5, 1.0)).place(REFERENCE)
    torch.testing.assert_close(aimed, torch.tensor([[3.5, 7.0]] * 2).double())


def test_mass_centre_has_a_gradient_at_the_original_image() -> None:
    """The published form, the squared distance from the original centre, has none."""
    heat = REFERENCE.map.clone().requires_grad_(True)
    now = dataclasses.replace(REFERENCE, map=heat)
    (grad,) = torch.autograd.grad(MassCentre()(now, REFERENCE).sum(), heat)
    assert bool((grad.abs().flatten(1).amax(dim=1) > 1e-3).all())


def test_region_and_avoid_are_shares_of_the_map() -> None:
    box = (0.25, 0.5, 0.75, 1.0)
    inside = NOW.map[:, 2:6, 4:].sum(dim=(1, 2))
    torch.testing.assert_close(Region(box)(NOW, REFERENCE), 1 - inside)
    torch.testing.assert_close(Avoid(box)(NOW, REFERENCE), inside)
    torch.testing.assert_close(Region(box).measures(NOW, REFERENCE)["mass_inside"], inside)
    frame = NOW.map.sum(dim=(1, 2)) - NOW.map[:, 1:-1, 1:-1].sum(dim=(1, 2))  # 8 // 7 wide
    torch.testing.assert_close(Region()(NOW, REFERENCE), 1 - frame)
    torch.testing.assert_close(Avoid()(NOW, REFERENCE), 1 - frame)
    mask = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    own = (mask * NOW.map).sum(dim=(1, 2))
    torch.testing.assert_close(Avoid(mask=mask)(NOW, REFERENCE), own)
    for make, message in (
        (lambda: Region((0.5, 0.0, 0.5, 1.0)), "the box"),
        (lambda: Region(box, mask), "not by both"),
        (lambda: Region(mask=mask[0])(NOW, REFERENCE), "one mask per image"),
        (lambda: Region(mask=mask[:1])(NOW, REFERENCE), "one mask per image"),
        (lambda: Region(mask=mask[:, :, :4])(NOW, REFERENCE), "one mask per image"),
        (lambda: MassCentre(towards=(0.0, 1.5)), "towards"),
        (lambda: MassCentre(towards=(-0.5, 1.0)), "towards"),
        (lambda: Shift(by=(0.5, -1.5)), "within -1..1"),
        (lambda: Shift(by=(1.5, 0.5)), "within -1..1"),
        (lambda: Topk(0), "k must be"),
        (lambda: TopkMargin(0), "k must be"),
        (lambda: TopkMargin(margin=-0.5), "margin must not"),
        (lambda: TopkMargin(margin=float("inf")), "margin must not"),
        (lambda: Unlike("ssim"), "unknown measure"),  # type: ignore[arg-type]
        (lambda: Shift()(NOW, REFERENCE), "call prepare first"),
        (lambda: Several(weights=(-1.0,)), "weights"),
        (lambda: Several(weights=(1.0, 2.0))(NOW, REFERENCE), "2 weights for 1 methods"),
        (lambda: SideBySide(()), "at least one"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_regions_and_places_of_a_wide_image() -> None:
    now, reference = look(1, wide=2), look(2, wide=2)
    frame = now.map.sum(dim=(1, 2)) - now.map[:, 1:-1, 1:-1].sum(dim=(1, 2))
    torch.testing.assert_close(Region()(now, reference), 1 - frame)
    torch.testing.assert_close(Avoid()(now, reference), 1 - frame)
    aimed = MassCentre(towards=(1.0, 1.0)).place(reference)
    torch.testing.assert_close(aimed, torch.tensor([[7.0, 15.0]] * 2).double())


def test_unlike_starts_beside_the_original_where_its_gradient_is_zero() -> None:
    heat = REFERENCE.map.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(
        Unlike()(dataclasses.replace(REFERENCE, map=heat), REFERENCE).sum(), heat
    )
    assert float(grad.abs().max()) < 1e-9
    start = Unlike().start(REFERENCE)
    away = (start - REFERENCE.x).abs()
    assert 0.01 < float(away.max()) <= 0.02
    assert abs(float((start - REFERENCE.x).mean())) < 0.002  # as much darker as lighter
    torch.testing.assert_close(away[0], away[1])  # an image alone starts as in a batch
    torch.testing.assert_close(Unlike()(NOW, REFERENCE), pcc(NOW.map, REFERENCE.map))


def explain(x: Tensor, target: Tensor) -> Tensor:
    weight = 1 + target.to(x).view(-1, 1, 1, 1) * torch.linspace(0, 1, SIDE, dtype=x.dtype)
    return trompe.heatmap(x.square() * weight + 0.1)


@pytest.mark.parametrize("by", [(0.0, 1.0), (-1.0, 0.01)])
def test_shift_that_leaves_the_map_in_place_is_refused(by: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="stays where it is"):
        Shift(by=by).prepare(REFERENCE, explain)


def test_shift_by_more_than_the_side_is_refused() -> None:
    with pytest.raises(UsageError, match=r"within -1\.\.1"):
        Shift(by=(1.5, 0.0))


def test_shift_keeps_the_values_of_the_map() -> None:
    ready = Shift(by=(0.25, 0.5)).prepare(REFERENCE, explain)
    assert ready.aim is not None
    torch.testing.assert_close(ready.aim[:, 2, 4], REFERENCE.map[:, 0, 0])
    torch.testing.assert_close(ready.aim[:, 0, 0], REFERENCE.map[:, 6, 4])
    shuffled = Shift(shuffle=3).prepare(REFERENCE, explain)
    for one in (ready, shuffled):
        assert one.aim is not None
        torch.testing.assert_close(
            one.aim.flatten(1).sort(dim=1).values, REFERENCE.map.flatten(1).sort(dim=1).values
        )
        torch.testing.assert_close(one(REFERENCE, REFERENCE), torch.ones(2).double())
        reached = dataclasses.replace(NOW, map=one.aim)
        torch.testing.assert_close(one(reached, REFERENCE), torch.zeros(2).double())
        expected = (NOW.map - one.aim).square().sum(dim=(1, 2)) / (
            (REFERENCE.map - one.aim).square().sum(dim=(1, 2))
        )
        torch.testing.assert_close(one(NOW, REFERENCE), expected)


def test_swap_aims_at_the_map_of_another_class() -> None:
    second = REFERENCE.logits.argsort(dim=1)[:, -2]
    ready = Swap().prepare(REFERENCE, explain)
    torch.testing.assert_close(ready.aim, explain(REFERENCE.x, second))
    for to in (4, torch.tensor([4, 4])):
        ready = Swap(to=to).prepare(REFERENCE, explain)
        torch.testing.assert_close(ready.aim, explain(REFERENCE.x, torch.tensor([4, 4])))
    two = dataclasses.replace(REFERENCE, logits=REFERENCE.logits[:, :2])
    other = two.logits.argmin(dim=1)
    torch.testing.assert_close(Swap().prepare(two, explain).aim, explain(REFERENCE.x, other))
    with pytest.raises(UsageError, match="one output"):
        Swap().prepare(dataclasses.replace(two, logits=two.logits[:, :1]), explain)


@pytest.mark.parametrize("base", [Unlike(), Topk(5), MassCentre(), Shift(), Swap()])
def test_several_is_the_mean_and_the_worst_over_the_methods(base: Objective) -> None:
    now, reference = look(1, wide=3), look(2, wide=3)

    def part(one: Observation, i: int) -> Observation:
        relevance = one.relevance[..., i * SIDE : (i + 1) * SIDE]
        return Observation(one.x, trompe.heatmap(relevance), one.logits, relevance)

    def explained(x: Tensor, target: Tensor) -> Tensor:
        maps = [explain(x + i, target) for i in range(3)]
        return trompe.heatmap(torch.cat(maps, dim=-1))

    whole = Several(base, weights=(1.0, 2.0, 0.5)).prepare(reference, explained)
    values, scores = [], []
    for i in range(3):
        before = part(reference, i)
        one = base.prepare(before, lambda x, target, i=i: explain(x + i, target))
        values.append(one(part(now, i), before))
        scores.append(one.score(part(now, i), before))
    expected = (values[0] + 2 * values[1] + 0.5 * values[2]) / 3.5
    torch.testing.assert_close(whole(now, reference), expected)
    torch.testing.assert_close(whole.score(now, reference), torch.stack(scores).amax(dim=0))
    tensors = [f.name for f in dataclasses.fields(whole.base) if f.name == "aimed"]
    assert all(getattr(whole.base, name) is None for name in tensors)  # they are in ``aims``


def test_side_by_side_is_each_method_with_equal_weight() -> None:
    model, x = nets.plain().double(), 0.6 * nets.images()
    methods = (trompe.explainer("gradient"), trompe.explainer("lrp"))
    target = torch.tensor([2, 1])
    relevance, logits = SideBySide(methods).explain(model, x, target)
    assert relevance.shape == (2, 3, 8, 16)
    for i, method in enumerate(methods):
        own = method(model, x, target)
        found = relevance[..., 8 * i : 8 * i + 8]
        nets.close(trompe.heatmap(found), trompe.heatmap(own), 1e-12)
        torch.testing.assert_close(found.abs().sum(dim=(1, 2, 3)), torch.ones(2).double())
    torch.testing.assert_close(logits, model(x))
    drawing = SideBySide((trompe.explainer("smoothgrad"), methods[0])).redrawn(5)
    assert drawing.methods[0].seed == 5
    assert drawing.lighter().methods[0].chunk == 5
    assert SideBySide(methods).lighter() is None


X = 0.6 * nets.images(2, dtype=torch.float32)
ATTACKS: dict[str, Objective] = {
    "topk": Topk(),
    "topk_margin": TopkMargin(),
    "mass_centre": MassCentre(),
    "region": Region((0.0, 0.5, 1.0, 1.0)),
    "avoid": Avoid((0.0, 0.0, 0.5, 0.5)),
    "unlike": Unlike(),
    "shift": Shift(),
    "swap": Swap(),
}


def attack(model: nn.Module, objective: Objective, explainer: object = "gradient") -> Tensor:
    """The score before and after, [2, B]."""
    settings = nets.one_beta(iterations=200, closeness=0.0, constraint=LInfBall(0.2))
    result = trompe.manipulate(
        model, X, explainer=explainer, objective=objective, preset=settings, keep_output="class"
    )
    assert bool(result.class_kept.all())
    method = trompe.explainer(explainer) if isinstance(explainer, str) else explainer
    seen = []
    for x in (result.x, result.x_adv):
        relevance, logits = method.explain(model, x, result.target_class)
        seen.append(Observation(x, trompe.heatmap(relevance), logits, relevance))

    def heat(x: Tensor, target: Tensor) -> Tensor:
        return trompe.heatmap(method(model, x, target))

    ready = objective.prepare(seen[0], heat)
    return torch.stack([ready.score(one, seen[0]) for one in seen])


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_gets_further_than_where_it_starts(name: str) -> None:
    before, after = attack(nets.plain(), ATTACKS[name])
    assert bool((after < before - 0.02).all())


@pytest.mark.parametrize("name", sorted({**ATTACKS, "several": Several()}))
def test_a_captured_step_gives_the_same_numbers(name: str) -> None:
    """Kept with the model for other images, whose aims are its inputs."""
    model, objective = nets.plain(), {**ATTACKS, "several": Several(Swap())}[name]
    settings = dataclasses.replace(
        preset_for("fast", "gradient", 8), iterations=3, constraint=LInfBall(0.2)
    )
    for seed in (1, 2):
        x = 0.6 * nets.images(2, seed, torch.float32)
        found = [
            trompe.manipulate(
                model, x, objective=objective, preset=settings, capture=capture, keep="last"
            )
            for capture in ("graph", "never")
        ]
        # Not to the last bit: the share of the output's weight is a tensor there.
        torch.testing.assert_close(found[0].x_adv, found[1].x_adv, rtol=0, atol=1e-4)
        assert float((found[0].x_adv - x).abs().max()) > 0.01


def test_an_attack_on_several_methods_moves_all_of_them() -> None:
    methods = (trompe.explainer("gradient"), trompe.explainer("grad_times_input"))
    before, after = attack(nets.plain(), Several(Unlike()), SideBySide(methods))
    assert bool((after < before - 0.02).all())
