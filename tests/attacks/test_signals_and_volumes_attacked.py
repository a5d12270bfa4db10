"""Attacks on signals [B, C, T] and volumes [B, C, D, H, W], and what is measured of them."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

import trompe
from trompe.attacks.channels import Jpeg
from trompe.attacks.constraints import LInfBall
from trompe.errors import TargetError, UsageError
from trompe.metrics import ssim
from trompe.metrics.attack import Outcome, attack_metrics

SPACE = trompe.InputSpace.between(-3.0, 5.0, channels=1)


def net(dims: int, channels: int = 1) -> nn.Sequential:
    torch.manual_seed(1)
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[dims]
    layers = (conv(channels, 6, 3), nn.ReLU(), conv(6, 8, 3), nn.ReLU(), pool(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 2**dims, 3)).double().eval()


def inputs(dims: int, channels: int = 1) -> Tensor:
    sides = {1: (32,), 3: (9, 8, 7)}[dims]
    made = torch.randn(2, channels, *sides, generator=torch.Generator().manual_seed(3))
    return made.double().clamp(-2.9, 4.9)


def test_a_signal_is_attacked_like_an_image_of_height_one() -> None:
    signal, x = net(1), inputs(1)
    image: list[nn.Module] = []
    for layer in signal:
        if isinstance(layer, nn.Conv1d):
            flat = nn.Conv2d(layer.in_channels, layer.out_channels, (1, 3)).double()
            flat.load_state_dict({"weight": layer.weight[:, :, None], "bias": layer.bias})
            image.append(flat)
        else:
            pools = isinstance(layer, nn.AdaptiveAvgPool1d)
            image.append(nn.AdaptiveAvgPool2d((1, 2)) if pools else layer)
    preset = nets.one_beta()  # the steps of one height
    options: dict[str, Any] = {
        "objective": "unlike",
        "preset": preset,
        "input_space": SPACE,
        "iterations": 20,
    }
    found = trompe.manipulate(signal, x, **options)
    expected = trompe.manipulate(nn.Sequential(*image).eval(), x.unsqueeze(2), **options)
    assert bool(found.found.all())
    nets.close(found.x_adv, expected.x_adv.squeeze(2), 1e-9)
    nets.close(found.map_adv, expected.map_adv, 1e-9)  # of one channel, with or without it


@pytest.mark.parametrize("dims", [1, 3])
def test_the_map_moves_within_the_range(dims: int) -> None:
    model, x = net(dims, 2), inputs(dims, 2)
    space = trompe.InputSpace.between(-3.0, 5.0, channels=2)
    target = torch.zeros(x.shape[2:])
    target[1] = 1.0
    options: dict[str, Any] = {"input_space": space, "constraint": LInfBall(0.1)}
    result = trompe.manipulate(model, x, target, iterations=30, **options)
    assert result.map_adv.shape == x.shape
    assert float((result.x_adv - x).abs().max()) <= 0.1 * 8 + 1e-9  # a tenth of the range
    toward = trompe.metrics.pcc(result.map_adv, result.aim)
    assert bool((toward >= trompe.metrics.pcc(result.map_original, result.aim)).all())
    nets.close(result.aim[:, 0], result.aim[:, 1], 1e-12)  # one target for every channel
    assert "correlates" in result.summary()


@pytest.mark.parametrize("dims", [1, 3])
def test_ssim_is_that_of_scikit_image(dims: int) -> None:
    a, b = inputs(dims, 3), inputs(dims, 3) + 0.3 * inputs(dims, 3).roll(1, 0)
    for data_range in (1.0, 4.0):
        expected = [
            structural_similarity(one.numpy(), other.numpy(), channel_axis=0, data_range=data_range)
            for one, other in zip(a, b, strict=True)
        ]
        found = ssim(a, b, data_range=data_range, sides=dims)
        nets.close(found, torch.tensor(expected).double(), 1e-9)
    scale = torch.stack([a, b]).transpose(0, 1).flatten(1)
    extent = scale.amax(1) - scale.amin(1)
    own = [
        ssim(a[i : i + 1], b[i : i + 1], data_range=float(extent[i]), sides=dims) for i in (0, 1)
    ]
    nets.close(ssim(a, b, sides=dims), torch.cat(own), 1e-12)


@pytest.mark.parametrize("dims", [1, 3])
def test_measures_are_along_the_sides(dims: int) -> None:
    x = inputs(dims, 4)
    space = trompe.InputSpace.between(-3.0, 5.0, channels=4)
    maps = [trompe.heatmap(inputs(dims, 4) + shift) for shift in (0.0, 0.5, -0.5)]
    logits = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    outcome = Outcome(x, x + 0.08, torch.zeros(2).long(), *maps, logits, logits)
    (first, _) = attack_metrics(outcome, space)
    structure = ssim(maps[2], maps[0], sides=dims)
    assert first["map_original_ssim"] == pytest.approx(float(structure[0]))
    assert first["image_psnr"] == pytest.approx(40.0)  # a hundredth of the range
    assert first["image_linf"] == pytest.approx(0.01)
    pixels = [space.to_pixels(one) for one in (x + 0.08, x)]
    structure = ssim(*pixels, sides=dims, data_range=1.0)
    assert first["image_ssim"] == pytest.approx(float(structure[0]))


@pytest.mark.parametrize("dims", [1, 3])
def test_what_is_of_images_alone_is_refused(dims: int) -> None:
    model, x = net(dims), inputs(dims)
    with pytest.raises(UsageError, match=r"InputSpace.between\(low, high, channels=1\)"):
        trompe.manipulate(model, x, objective="unlike", iterations=1)
    options: dict[str, Any] = {"input_space": SPACE, "iterations": 1}
    for objective in ("shift", "mass_centre", "region", "avoid"):
        with pytest.raises(UsageError, match=r"is for images \[B, C, H, W\]"):
            trompe.manipulate(model, x, objective=objective, **options)
    with pytest.raises(UsageError, match="Jpeg is for images"):
        trompe.manipulate(model, x, objective="unlike", through=[Jpeg(75)], **options)
    with pytest.raises(TargetError, match="shape"):
        trompe.manipulate(model, x, torch.ones(3, 3, 3, 3), **options)
    with pytest.raises(UsageError, match="auto_attack is for images"):
        trompe.auto_attack(model, x, input_space=SPACE, radius=0.1)


def test_a_space_without_a_range_is_refused() -> None:
    with pytest.raises(UsageError, match="no value is between"):
        trompe.InputSpace.between(1.0, 1.0, channels=2)
    x = torch.tensor([[[-3.0], [5.0]]])
    space = trompe.InputSpace.between(-3.0, 5.0, channels=2)
    nets.close(space.to_pixels(x), torch.tensor([[[0.0], [1.0]]]), 1e-6)
