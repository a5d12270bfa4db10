"""The losses of the defences against slow forms of the same formulas, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.defences.base import Defence, defences, heat
from trompe.defences.trained.rar import attribution
from trompe.errors import UsageError
from trompe.input_space import InputSpace
from trompe.training import Batch

SPACE = InputSpace((0.4, 0.5, 0.6), (0.5, 0.25, 0.2))
STD = torch.tensor(SPACE.std).double().view(1, 3, 1, 1)


def network(smooth: bool = False) -> nn.Module:
    torch.manual_seed(0)
    act = nn.Softplus(beta=4) if smooth else nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), act, nn.Linear(16, 4)).double()


def batch(count: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, 3, 2, 2, generator=draw).double()
    y = torch.arange(count) % 4
    return Batch(SPACE.from_pixels(pixels), y, SPACE, torch.Generator().manual_seed(2))


def again(given: Batch, seed: int) -> Batch:
    """The same images, with random numbers from the beginning."""
    return Batch(given.x, given.y, SPACE, torch.Generator().manual_seed(seed))


def of_pixels(net: nn.Module, y: int) -> Any:
    """The class's score as a function of the twelve pixels."""

    def score(pixels: Tensor) -> Tensor:
        return net(SPACE.from_pixels(pixels.view(1, 3, 2, 2)))[0, y]

    return score


def test_the_hessian_penalty_tends_to_the_squared_frobenius_norm() -> None:
    net, given = network(smooth=True), batch()
    defence = defences["hessian"](beta=None, weight=0.5, vectors=4000)  # type: ignore[call-arg]
    found = defence.penalty(net, given)
    pixels = SPACE.to_pixels(given.x)
    for index in range(3):
        score = of_pixels(net, int(given.y[index]))
        dense = torch.autograd.functional.hessian(score, pixels[index].flatten())
        assert found is not None
        assert float(found[index]) == pytest.approx(0.5 * float(dense.square().sum()), rel=0.1)


def test_ssr_is_the_largest_curvature_of_the_loss_of_a_relu_network() -> None:
    net, given = network(), batch()
    found = defences["ssr"](weight=1.0).penalty(net, given)  # type: ignore[call-arg]
    pixels = SPACE.to_pixels(given.x)
    for index in range(3):
        y = given.y[index : index + 1]

        def loss(p: Tensor, y: Tensor = y) -> Tensor:
            return F.cross_entropy(net(SPACE.from_pixels(p.view(1, 3, 2, 2))), y)

        dense = torch.autograd.functional.hessian(loss, pixels[index].flatten())
        largest = torch.linalg.eigvalsh(dense)[-1]
        assert found is not None
        assert float(found[index]) == pytest.approx(float(largest), rel=1e-6)


def test_ssr_masks_by_scaled_logits() -> None:
    """Logits times ten make the penalty small and move no explanation: the trap is real."""
    net, given = network(), batch()
    scaled = nn.Sequential(net, nn.Flatten())
    scaled.register_forward_hook(lambda module, args, out: 1e3 * out)
    penalty = defences["ssr"](weight=1.0).penalty  # type: ignore[call-arg]
    plain, sure = penalty(net, given), penalty(scaled, given)
    assert plain is not None
    assert sure is not None
    assert float(sure.max()) < 1e-3 * float(plain.min())
    gradient = trompe.explainer("gradient")
    one, other = (trompe.heatmap(gradient(n, given.x, given.y)) for n in (net, scaled))
    torch.testing.assert_close(one, other)


def test_cure_is_the_squared_change_of_the_losss_gradient() -> None:
    net, given = network(smooth=True), batch()
    defence = defences["cure"](weight=2.0, h=0.3)  # type: ignore[call-arg]
    found = defence.penalty(net, given)
    pixels = SPACE.to_pixels(given.x)
    for index in range(3):
        y = given.y[index : index + 1]

        def slope(p: Tensor, y: Tensor = y) -> Tensor:
            p = p.detach().requires_grad_(True)
            loss = F.cross_entropy(net(SPACE.from_pixels(p[None])), y)
            return torch.autograd.grad(loss, p)[0]

        here = slope(pixels[index])
        z = here.sign() / math.sqrt(12)
        change = (slope(pixels[index] + 0.3 * z) - here).square().sum()
        assert found is not None
        assert float(found[index]) == pytest.approx(2 * float(change), rel=1e-6)


def test_lga_and_its_derivative_by_finite_differences() -> None:
    net, given = network(smooth=True), batch()
    defence = defences["lga"](l2=0.3, cosine=0.7, radius=0.1)  # type: ignore[call-arg]
    weight = net[1].weight

    def loss() -> Tensor:
        fresh = Batch(given.x, given.y, SPACE, torch.Generator().manual_seed(5))
        found = defence.penalty(net, fresh)
        assert found is not None
        return found.sum()

    fresh = Batch(given.x, given.y, SPACE, torch.Generator().manual_seed(5))
    z = 0.1 * fresh.even() / STD
    score = net(given.x + z).gather(1, given.y[:, None]).sum()
    x, moved = (v.detach().requires_grad_(True) for v in (given.x, given.x + z))
    g = torch.autograd.grad(net(x).gather(1, given.y[:, None]).sum(), x)[0] / STD
    h = torch.autograd.grad(net(moved).gather(1, given.y[:, None]).sum(), moved)[0] / STD
    g, h = g.flatten(1), h.flatten(1)
    slow = 0.3 * (g - h).square().sum() + 0.35 * (1 - torch.cosine_similarity(g, h)).sum()
    assert float(loss()) == pytest.approx(float(slow), rel=1e-6)
    assert bool(torch.isfinite(score))
    (slope,) = torch.autograd.grad(loss(), weight)
    # The source gradient counts as given, so the difference quotient moves the neighbour's alone.
    entry = torch.zeros_like(weight)
    entry[2, 3] = 1e-6

    def at(sign: int) -> Tensor:
        with torch.no_grad():
            weight.add_(sign * entry)
        there = torch.autograd.grad(net(moved).gather(1, given.y[:, None]).sum(), moved)[0] / STD
        with torch.no_grad():
            weight.sub_(sign * entry)
        there = there.flatten(1)
        return (
            0.3 * (g - there).square().sum() + 0.35 * (1 - torch.cosine_similarity(g, there)).sum()
        )

    assert float(slope[2, 3]) == pytest.approx(float(at(1) - at(-1)) / 2e-6, rel=1e-4)


def test_integrated_gradients_of_the_loss_add_up_to_its_change() -> None:
    net, given = network(smooth=True), batch()
    end = given.x + 0.5
    found = attribution(net, given.x, end, given.y, 200).flatten(1).sum(dim=1)
    change = F.cross_entropy(net(end), given.y, reduction="none") - F.cross_entropy(
        net(given.x), given.y, reduction="none"
    )
    torch.testing.assert_close(found, change, atol=1e-4, rtol=1e-4)


def test_ig_norm_tends_to_the_gradients_norm_in_a_small_ball() -> None:
    """With one point and a radius to 0 it is ``radius * |grad l|_1`` (Chen et al. 2019)."""
    net, given = network(smooth=True), batch()
    radius = 1e-5
    defence = defences["ig_norm"](weight=1.0, radius=radius, steps=8, points=1)  # type: ignore[call-arg]
    found = defence.penalty(net, given)
    pixels = SPACE.to_pixels(given.x).requires_grad_(True)
    loss = F.cross_entropy(net(SPACE.from_pixels(pixels)), given.y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, pixels)
    assert found is not None
    torch.testing.assert_close(found, radius * slope.flatten(1).abs().sum(1), rtol=1e-2, atol=0)


def test_r2et_pairs_the_border_of_the_top_k() -> None:
    defence: Any = defences["r2et"](share=0.25)  # type: ignore[call-arg]
    shares = torch.rand(2, 8, generator=torch.Generator().manual_seed(0)).double()
    for row, found in zip(shares, defence.gap(shares), strict=True):
        order = sorted(row.tolist(), reverse=True)
        pairs = [(order[1], order[2]), (order[0], order[3])]
        slow = 8 * sum(low - high for high, low in pairs) / 2
        assert float(found) == pytest.approx(slow)


def test_r2et_adds_the_squared_change_over_a_random_step() -> None:
    net, given = network(smooth=True), batch()
    defence: Any = defences["r2et"](thickness=0.3, hessian=0.7, share=0.25, radius=0.1)  # type: ignore[call-arg]
    pixels = SPACE.to_pixels(given.x)
    signs = again(given, 2).normal().sign()

    def slope(p: Tensor) -> Tensor:
        p = p.detach().requires_grad_(True)
        score = net(SPACE.from_pixels(p)).gather(1, given.y[:, None]).sum()
        return torch.autograd.grad(score, p)[0]

    here, there = slope(pixels), slope(pixels + 0.1 * signs)
    shares = heat(here * STD)  # of the normalised image, as the maps that are shown
    slow = 0.3 * defence.gap(shares) + 0.7 * (there - here).flatten(1).square().sum(1)
    found = defence.penalty(net, again(given, 2))
    torch.testing.assert_close(found, slow)


def test_ig_sum_norm_takes_both_terms_at_the_same_worst_neighbour() -> None:
    net, given = network(smooth=True), batch()
    defence: Any = defences["ig_sum_norm"](weight=0.4, radius=0.1, points=50)  # type: ignore[call-arg]
    terms = defence(net, again(given, 3))
    worst = defence._worst(net, again(given, 3))
    slow = torch.zeros_like(given.x)
    for k in range(50):
        x = (given.x + (k + 0.5) / 50 * (worst - given.x)).requires_grad_(True)
        loss = F.cross_entropy(net(x), given.y, reduction="sum")
        slow = slow + torch.autograd.grad(loss, x)[0].mul(worst - given.x) / 50
    size = slow.flatten(1).abs().sum(1).mean()
    torch.testing.assert_close(terms["penalty"], 0.4 * size)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(net(worst), given.y))


def test_the_worst_neighbour_is_that_of_the_l1_norm_of_the_integrated_gradients() -> None:
    """One step: from a random image of the ball along the signs of that norm's own gradient."""
    net, given = network(smooth=True), batch()
    radius = 0.01  # so small that no sum of signed shares has the same signs by chance
    defence: Any = defences["ig_norm"](radius=radius, steps=1, points=4)  # type: ignore[call-arg]
    pixels = SPACE.to_pixels(given.x)
    drawn = again(given, 3).even()
    start = (pixels + radius * drawn).clamp(0, 1)
    moved = SPACE.from_pixels(start).detach().requires_grad_(True)
    norm = torch.zeros_like(given.x)
    for k in range(4):
        x = given.x + (k + 0.5) / 4 * (moved - given.x)
        loss = F.cross_entropy(net(x), given.y, reduction="sum")
        norm = norm + torch.autograd.grad(loss, x, create_graph=True)[0] / 4
    (slope,) = torch.autograd.grad(((moved - given.x) * norm).abs().sum(), moved)
    slow = start + 2.5 * radius * slope.sign()
    slow = torch.minimum(torch.maximum(slow, pixels - radius), pixels + radius).clamp(0, 1)
    torch.testing.assert_close(SPACE.to_pixels(defence._worst(net, again(given, 3))), slow)


def test_the_penalty_is_added_to_the_cross_entropy_of_what_the_network_is_shown() -> None:
    net, given = network(smooth=True), batch()
    for name in ("hessian", "lga", "noise", "ssr"):
        defence: Defence = defences[name]()
        terms = defence(net, again(given, 4))
        fresh = again(given, 4)
        shown = defence.inputs(net, fresh)
        torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(net(shown), given.y))
        penalty = defence.penalty(net, fresh)
        assert ("penalty" in terms) == (penalty is not None)
        if penalty is not None:
            torch.testing.assert_close(terms["penalty"], penalty.mean())


@pytest.mark.parametrize("name", ["cure", "hessian", "ig_norm", "r2et", "ssr", "weight_decay"])
def test_the_weights_feel_the_penalty(name: str) -> None:
    """Its derivative is its difference quotient: a penalty without a graph would train nothing."""
    net, given = network(smooth=True), batch()
    defence = defences[name]()

    def loss() -> Tensor:
        found = defence.penalty(net, again(given, 5))
        assert found is not None
        return found.sum()

    weight = net[1].weight
    (slope,) = torch.autograd.grad(loss(), weight)
    largest = int(slope.abs().argmax())

    def at(step: float) -> float:
        with torch.no_grad():
            weight.view(-1)[largest] += step
        found = float(loss())
        with torch.no_grad():
            weight.view(-1)[largest] -= step
        return found

    quotient = (at(1e-5) - at(-1e-5)) / 2e-5
    assert float(slope.view(-1)[largest]) == pytest.approx(quotient, rel=1e-4)


def test_weight_decay_is_half_the_squared_norm_of_the_matrices() -> None:
    net, given = network(), batch()
    found = defences["weight_decay"](weight=0.1).penalty(net, given)  # type: ignore[call-arg]
    squares = net[1].weight.square().sum() + net[3].weight.square().sum()
    assert found is not None
    torch.testing.assert_close(found, 0.05 * squares.expand(3))


def test_atex_noise_is_across_the_gradient_and_the_divergence_is_kls() -> None:
    seen = []
    net, given = network(), batch()
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    defence = defences["atex"](weight=1.0, noise=0.3, temperature=2.0)  # type: ignore[call-arg]
    found = defence.penalty(net, given)
    moved = seen[-1] - given.x
    x = given.x.detach().requires_grad_(True)
    (g,) = torch.autograd.grad(net(x).gather(1, given.y[:, None]).sum(), x)
    assert float((moved.flatten(1) * g.flatten(1)).sum(1).abs().max()) < 1e-9
    p, q = ((net(v) / 2).softmax(1) for v in (given.x, given.x + moved))
    assert found is not None
    torch.testing.assert_close(found, 4 * (p * (p.log() - q.log())).sum(1))


@pytest.mark.parametrize("name", ["adversarial", "art"])
def test_changed_images_stay_in_the_ball_and_are_valid(name: str) -> None:
    seen: list[Tensor] = []
    net, given = network(), batch()
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    defence = defences[name](radius=0.05)  # type: ignore[call-arg]
    terms = defence(net, given)
    for x in seen:
        change = (SPACE.to_pixels(x) - SPACE.to_pixels(given.x)).abs().max()
        assert float(change) <= 0.05 + 1e-9
        assert float(SPACE.to_pixels(x).min()) >= -1e-9
        assert float(SPACE.to_pixels(x).max()) <= 1 + 1e-9
    plain = F.cross_entropy(net(given.x), given.y)
    if name == "adversarial":
        assert float(terms["cross_entropy"]) > float(plain)


def test_noise_has_sizes_from_nothing_to_sigma() -> None:
    torch.manual_seed(0)
    x = SPACE.from_pixels(torch.full((200, 3, 8, 8), 0.5).double())
    given = Batch(x, torch.zeros(200, dtype=torch.long), SPACE, torch.Generator().manual_seed(0))
    seen = defences["noise"](sigma=0.4).inputs(nn.Identity(), given)  # type: ignore[call-arg]
    sizes = (SPACE.to_pixels(seen) - 0.5).flatten(1).std(dim=1)
    assert float(sizes.max()) == pytest.approx(0.4, rel=0.2)
    assert float(sizes.mean()) == pytest.approx(0.2, rel=0.1)
    assert float(sizes.min()) < 0.02


@pytest.mark.parametrize("name", defences.names())
def test_every_defence_trains_and_names_its_source(name: str) -> None:
    net, given = network(), batch()
    defence: Defence = defences[name]()
    assert defence.source
    terms = defence(net, given)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    slopes = [p.grad for p in net.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in slopes)
    assert any(float(g.abs().max()) > 0 for g in slopes if g is not None)
    for field in vars(defence):
        if isinstance(getattr(defence, field), (int, float)):
            with pytest.raises(UsageError):
                type(defence)(**{field: -1})
            with pytest.raises(UsageError):
                type(defence)(**{field: math.nan})


def test_heat_sums_to_one() -> None:
    found = heat(torch.randn(2, 3, 4, 4))
    assert found.shape == (2, 16)
    torch.testing.assert_close(found.sum(1), torch.ones(2))
