"""The sandwich of a smoothed map: what is attacked is what is certified, and stays below it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates import noise_sandwich
from trompe.certificates.noise_sandwich import NoiseSandwich
from trompe.certificates.smoothed_squares import SmoothedSquares
from trompe.errors import UsageError
from trompe.metrics import pcc

SPACE = trompe.InputSpace(mean=(0.2, 0.5, 0.4), std=(0.5, 0.25, 0.125))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 36, 3),
    )  # fmt: skip


def enclosed(**options: Any) -> NoiseSandwich:
    x = SPACE.from_pixels(torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(1)))
    settings = {"explainer": "gradient", "radii": [0.2, 0.5], "sigma": 0.5, "samples": 600,
                "pool": 2, "iterations": 8}  # fmt: skip
    return noise_sandwich(network(), x, input_space=SPACE, **(settings | options))


def test_the_attack_stays_below_the_certificate_and_never_weakens() -> None:
    found = enclosed()
    assert [(one.image, one.radius) for one in found.layers] == [
        (0, 0.2), (0, 0.5), (1, 0.2), (1, 0.5)
    ]  # fmt: skip
    for one in found.layers:
        assert one.certified_pcc <= one.attacked_pcc < 1
        assert 0 < one.attacked_l1 <= one.certified_l1
        assert one.certified_overlap <= one.attacked_overlap
        assert one.plain_pcc < one.attacked_pcc  # noise is what protects
        assert one.ratio is None or one.ratio >= 1
    for small, large in (found.layers[:2], found.layers[2:]):
        assert large.attacked_pcc <= small.attacked_pcc
        assert large.plain_pcc <= small.plain_pcc
        assert large.attacked_l1 >= small.attacked_l1


def test_void_is_said_and_not_drawn_as_a_number() -> None:
    found = enclosed(radii=[5.0], samples=100)
    assert all(one.void and one.ratio is None for one in found.layers)
    assert all(row["certified_pcc"] is None for row in found.rows())


def test_the_attack_goes_through_the_denoiser() -> None:
    def blurred(pixels: Tensor, sigma: float) -> Tensor:
        return nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1)

    plain, denoised = enclosed(), enclosed(denoiser=blurred)
    assert [one.plain_pcc for one in plain.layers] == [one.plain_pcc for one in denoised.layers]
    assert [one.attacked_pcc for one in plain.layers] != [
        one.attacked_pcc for one in denoised.layers
    ]


@pytest.mark.parametrize("size", [(10, 10), (9, 7)])
def test_what_is_climbed_is_the_correlation_that_is_certified(size: tuple[int, int]) -> None:
    """Against a slow sum: PCC of the means of standardised maps over squares."""
    conv = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    net = nn.Sequential(conv, nn.Flatten(), nn.Linear(20, 3)).double()
    one, other = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    target, gradient = torch.tensor([1]), trompe.explainer("gradient")
    method = SmoothedSquares(gradient, 0.3, SPACE, pool=3, samples=4, seed=5)
    noise = torch.randn(
        (4, 1, 3, *size), generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )

    def mean(x: Tensor) -> Tensor:
        total = torch.zeros(-(-size[0] // 3), -(-size[1] // 3)).double()
        for e in noise:
            step = 0.3 * e / torch.tensor(SPACE.std).view(3, 1, 1)
            heat = gradient(net, x + step, target)[0].abs().sum(0)
            squares = torch.zeros_like(total)
            for i in range(size[0]):
                for j in range(size[1]):
                    squares[i // 3, j // 3] += heat[i, j]
            squares = squares - squares.mean()
            total += squares / squares.norm()
        return total

    first, second = mean(one), mean(other)
    expected = float((first * second).sum() / first.norm() / second.norm())
    # of equal squares only: cut ones at the border count by their pixels in a map
    inner = [m[0, 0, : 3 * (size[0] // 3) : 3, : 3 * (size[1] // 3) : 3]
             for m in (method(net, one, target), method(net, other, target))]  # fmt: skip
    if size[0] % 3 == size[1] % 3 == 0:
        assert float(pcc(*(m[None] for m in inner))) == pytest.approx(expected, abs=1e-9)
    for m, slow in zip(inner, (first, second), strict=True):
        rows, columns = m.shape
        flat = (m - m.mean()) - (slow[:rows, :columns] - slow[:rows, :columns].mean())
        assert float(flat.abs().max()) < 1e-9


def test_radii_must_rise() -> None:
    with pytest.raises(UsageError, match="rising"):
        enclosed(radii=[0.2, 0.1])
    with pytest.raises(UsageError, match="at least 1"):
        enclosed(iterations=0)


def test_one_copy_at_a_time_has_the_same_map_and_derivative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network().double().requires_grad_(False)
    x = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(1)).double()
    weight = torch.rand(2, 1, 10, 10, generator=torch.Generator().manual_seed(2)).double()
    smooth = trompe.smooth(net, beta=5.0)
    sizes: list[int] = []

    def counted(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        sizes.append(len(x))
        return trompe.explainer("gradient")(model, x, target)

    found = []
    for pixels in (10**6, 1):
        monkeypatch.setattr("trompe.certificates.smoothed_squares._PIXELS", pixels)
        method = SmoothedSquares(counted, 0.3, SPACE, pool=2, samples=5)
        start = x.clone().requires_grad_(True)
        value = method(smooth, start, torch.tensor([0, 2]))
        (slope,) = torch.autograd.grad((value * weight).sum(), start)
        found.append((value.detach(), slope))
    assert sizes == [10] + [2] * 10  # all at once; each copy once more for its derivative
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
        assert one.abs().max() > 0
