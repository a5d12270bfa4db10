"""Certificates from noise of signals and volumes, beside those of the same numbers as images."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates import NoiseCertificate
from trompe.certificates.noisy_maps import squares
from trompe.errors import CertificateError, UsageError

SPACE = trompe.InputSpace.between(-3.0, 3.0, channels=1)
NOISE: dict[str, Any] = {"method": "noise", "explainer": "gradient", "sigma": 0.2, "samples": 300}


class OfImages(nn.Module):
    """A network of images for volumes of depth one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x.squeeze(2))
        return found


def image_net() -> nn.Module:
    torch.manual_seed(2)
    layers = (nn.Conv2d(1, 6, (1, 3)), nn.Softplus(), nn.Conv2d(6, 8, (1, 3)), nn.Softplus())
    head = (nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten(), nn.Linear(24, 3))
    return nn.Sequential(*layers, *head).double().eval()


def signal_net() -> nn.Module:
    """The same numbers of signals, written as the images' network."""
    image = image_net()
    made: list[nn.Module] = []
    for layer in image.children():
        if isinstance(layer, nn.Conv2d):
            conv = nn.Conv1d(layer.in_channels, layer.out_channels, 3).double()
            assert layer.bias is not None
            conv.load_state_dict({"weight": layer.weight.squeeze(2), "bias": layer.bias})
            made.append(conv)
        else:
            pools = isinstance(layer, nn.AdaptiveAvgPool2d)
            made.append(nn.AdaptiveAvgPool1d(3) if pools else layer)
    return nn.Sequential(*made).eval()


def certified(net: nn.Module, x: Tensor, pool: int) -> NoiseCertificate:
    found = trompe.certify(net, x, radius=[0.02, 0.1], input_space=SPACE, pool=pool, **NOISE)
    assert isinstance(found, NoiseCertificate)
    return found


@pytest.mark.parametrize("dims", [3, 5])
def test_the_bounds_are_those_of_the_image(dims: int) -> None:
    x = torch.randn(1, 1, 1, 24, generator=torch.Generator().manual_seed(4)).double()
    image = certified(image_net(), x, 1)
    if dims == 3:
        other = certified(signal_net(), x.squeeze(2), 1)
    else:
        other = certified(OfImages(image_net()).eval(), x.unsqueeze(2), 1)
    nets.close(other.pcc, image.pcc, 1e-9)
    nets.close(other.heatmap_l1, image.heatmap_l1, 1e-9)
    assert bool((image.pcc > 0).all())


@pytest.mark.parametrize("sides", [1, 3])
@pytest.mark.parametrize("pool", [2, 3, 5])
def test_blocks_add_up_what_is_in_them(sides: int, pool: int) -> None:
    heat = torch.rand(2, 2, *{1: (11,), 3: (7, 4, 5)}[sides]).double()
    found = squares(heat, pool, sides)
    expected = torch.zeros_like(found)
    for place in torch.cartesian_prod(*map(torch.arange, heat.shape)).tolist():
        block = (*place[:2], *(at // pool for at in place[2:]))
        expected[tuple(block)] += heat[tuple(place)]
    nets.close(found, expected, 1e-12)


@pytest.mark.parametrize("sides", [1, 3])
def test_signals_are_cut_along_time(sides: int) -> None:
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[sides]
    pool = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[sides]
    net = nn.Sequential(*(conv(12, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 3))).eval()
    x = torch.randn(1, 12, *{1: (20,), 3: (6, 5, 4)}[sides])
    space = trompe.InputSpace.between(-3.0, 3.0, channels=12)
    found = trompe.certify(net, x, radius=0.01, input_space=space, pool=4, **NOISE)
    assert isinstance(found, NoiseCertificate)
    assert found.smoothed.shape == (1, 12, *{1: (5,), 3: (2, 2, 1)}[sides])  # 12 leads stay 12
    with pytest.raises(CertificateError, match=f"conv{sides}d"):
        trompe.certify(net, x, radius=0.01, input_space=space)
    from trompe.certificates.noise_sandwich import noise_sandwich

    with pytest.raises(UsageError, match="the sandwich is for images"):
        noise_sandwich(net, x, explainer="gradient", radii=[0.01], input_space=space)
