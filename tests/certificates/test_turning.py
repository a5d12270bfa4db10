"""The attack that turns a smoothed map, and how attacks on smoothed maps are judged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks.presets import preset_for
from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.smoothed_attack import _CHOICE, SmoothedAttack, correlation
from trompe.certificates.smoothed_squares import SmoothedSquares
from trompe.certificates.turning import Turning

SPACE = trompe.InputSpace(mean=(0.2, 0.5, 0.4), std=(0.5, 0.25, 0.125))
SIGMA = 0.02


def settings(explainer: object) -> SmoothedMap:
    return SmoothedMap(explainer=explainer, sigma=SIGMA, samples=10, pool=2)  # type: ignore[arg-type]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)).double()


def linear_map(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """A positive map of squares, linear in the pixels: one direction moves it far more."""
    weights = torch.rand(16, 192, generator=torch.Generator().manual_seed(1)).double()
    ways = torch.randn(2, 192, generator=torch.Generator().manual_seed(2)).double()
    shape = torch.randn(2, 16, generator=torch.Generator().manual_seed(3)).double()
    pixels = SPACE.to_pixels(x).flatten(1)
    squares = 10 + weights.sum(1) / 10 + pixels @ ways.T @ shape * 0.05
    return nn.functional.interpolate(squares.view(-1, 1, 4, 4), scale_factor=2)[:, 0]


def image() -> Tensor:
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(4)).double()
    return SPACE.from_pixels(pixels)


def standardised(x: Tensor) -> Tensor:
    share = linear_map(nn.Identity(), x, torch.zeros(1))[:, ::2, ::2].flatten(1)
    centred = share - share.mean(1, keepdim=True)
    return (centred / centred.norm(dim=1, keepdim=True))[0]


@pytest.mark.parametrize("start", ["widest", "wrong"])
def test_the_largest_turn_is_found(start: str) -> None:
    """Against the exact Jacobian: its leading singular value is the most, to first order."""
    x, radius = image(), 0.01
    pixels = SPACE.to_pixels(x)
    jacobian = torch.autograd.functional.jacobian(
        lambda p: standardised(SPACE.from_pixels(p.view_as(x))), pixels.flatten()
    )
    most = float(torch.linalg.matrix_norm(jacobian, 2)) * radius
    turning = Turning(
        network(), x, torch.tensor([1]), settings(linear_map), SPACE,
        preset_for("fast", "gradient", 8), copies=32,
    )  # fmt: skip
    if start == "wrong":  # nearly the second direction: power iteration leads away from it
        left, sizes, _ = torch.linalg.svd(jacobian)
        assert sizes[1] > sizes[0] / 3
        turning.across = left[:, 1] + 0.2 * left[:, 0]
        for _ in range(3):
            turning(radius)
    found = turning(radius)
    assert found is not None
    assert float((SPACE.to_pixels(found) - pixels).norm()) == pytest.approx(radius, rel=1e-6)
    turned = float((1 - standardised(found) @ standardised(x)).mul(2).sqrt())
    assert turned == pytest.approx(most, rel=0.05)


def test_a_map_that_no_image_moves_is_left_alone() -> None:
    def constant(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return torch.arange(64.0).double().view(1, 8, 8).expand(len(x), 8, 8) + 0 * x.sum(1)

    turning = Turning(
        network(), image(), torch.tensor([1]), settings(constant), SPACE,
        preset_for("fast", "gradient", 8), copies=8,
    )  # fmt: skip
    assert turning(0.1) is None


def test_copies_without_a_map_count_as_constant() -> None:
    """As Grad-CAM of a noisy copy, which may be all zero."""

    def sometimes(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        kept = (SPACE.to_pixels(x).flatten(1).mean(1) > SPACE.to_pixels(image()).mean()).double()
        return linear_map(model, x, target) * kept[:, None, None]

    turning = Turning(
        network(), image(), torch.tensor([1]), settings(sometimes), SPACE,
        preset_for("fast", "gradient", 8), copies=32,
    )  # fmt: skip
    lost = (turning._units(image()) == 0).all(dim=1)
    assert lost.any()
    assert not lost.all()
    found = turning(0.01)
    assert found is not None
    assert torch.isfinite(found).all()
    climbed = SmoothedSquares(sometimes, SIGMA, SPACE, 2, 32)  # type: ignore[arg-type]
    x = image().requires_grad_(True)
    smoothed = climbed.explain(network(), x, torch.tensor([1]))[0]
    assert 1 < float(smoothed.detach().max()) < 1e3
    (slope,) = torch.autograd.grad(smoothed.std(), x)
    assert torch.isfinite(slope).all()


def test_noise_that_is_left_in_a_mean_is_no_change() -> None:
    """Maps that differ from copy to copy, and not in their expectation, count as unmoved."""
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(100, generator=generator).double()
    expected = 0.5 * expected / expected.norm()
    pair = [
        expected + 0.1 * torch.randn(2, 100, generator=generator).double() / 10 for _ in range(2)
    ]
    together = [one.mean(0) / one.mean(0).norm() for one in pair]
    naive = 1 - float(together[0] @ together[1])
    assert naive > 0.01
    assert abs(1 - correlation(*pair)) < naive / 3
    moved = torch.stack([expected, expected])
    other = moved + torch.eye(100).double()[0]
    exact = float(moved[0] @ other[0] / moved[0].norm() / other[0].norm())
    assert correlation(moved, other) == pytest.approx(exact)
    assert correlation(moved, -moved) == -1


def test_a_mean_of_noise_alone_is_no_strong_attack() -> None:
    """A map whose expectation is 0: its correlation is a matter of chance, and never near -1."""
    generator = torch.Generator().manual_seed(0)
    expected = torch.eye(100).double()[:1].expand(2, -1)
    found = [
        correlation(expected, 0.01 * torch.randn(2, 100, generator=generator).double())
        for _ in range(300)
    ]
    assert min(found) > -0.5


def test_the_judge_is_right_in_the_mean() -> None:
    """Over many draws, with noise of the same size as the expected maps, shared or not."""
    generator = torch.Generator().manual_seed(0)
    one = torch.eye(100).double()[0]
    other = 0.9 * one + (1 - 0.81) ** 0.5 * torch.eye(100).double()[1]
    for shared in (True, False):
        found = []
        for _ in range(400):
            noise = 0.08 * torch.randn(2, 100, generator=generator).double()
            fresh = noise if shared else 0.08 * torch.randn(2, 100, generator=generator).double()
            found.append(correlation(one + noise, other + fresh))
        values = torch.tensor(found)
        error = float(values.std()) / 20
        assert float(values.mean()) == pytest.approx(0.9, abs=4 * error + 0.005)
        assert error < 0.005


def test_the_sandwich_takes_the_turn_where_it_is_the_strongest() -> None:
    attack = SmoothedAttack(
        network(), image(), torch.tensor([1]), settings(linear_map), SPACE, 4, 8, 3
    )
    turned = attack.turning(0.01)
    assert turned is not None
    seen = attack._judged(turned, _CHOICE)
    alone = correlation(attack.before.units, seen.units)
    attack.smoothed(0.01)
    assert attack.least[0][0] <= alone + 1e-9 < 1


def test_the_choice_of_an_attack_does_not_flatter_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty images with the same law of maps: the least estimate is one of chance alone.

    The map wraps around within a tiny part of the noise, so no change of the image changes its law;
    what is told of the one chosen is neither below nor above what any one of them gives.
    """
    net, start = network(), image()
    towards = torch.randn(1, 192, 16, generator=torch.Generator().manual_seed(5)).double()

    def chaotic(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        waves = torch.sin(1e4 * (x.flatten(1) @ towards[0]))
        base = torch.linspace(0, 1, 16, dtype=torch.float64)
        return nn.functional.interpolate((2 + base + waves).view(-1, 1, 4, 4), scale_factor=2)[:, 0]

    generator = torch.Generator().manual_seed(6)
    chosen, told = [], []
    for number in range(12):
        x = start + 0.01 * number
        attack = SmoothedAttack(net, x, torch.tensor([1]), settings(chaotic), SPACE, 1, 1, 3)
        tried = [
            x + 1e-3 * torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(40)
        ]
        monkeypatch.setattr(attack, "_attempts", lambda *_, tried=tried: tried)
        monkeypatch.setattr(attack, "turning", lambda _: None)
        told.append(attack.smoothed(0.1)[0])
        chosen.append(attack.least[0][0])
    plain = [correlation(attack.before.units, attack._judged(x, _CHOICE).units) for x in tried]
    usual, spread = torch.tensor(plain).mean(), torch.tensor(plain).std()
    assert torch.tensor(chosen).mean() < usual - 1.5 * spread  # a choice flatters
    assert (torch.tensor(told).mean() - usual).abs() < spread
