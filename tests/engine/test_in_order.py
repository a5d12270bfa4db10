"""One image through a stem with a batch norm into a transformer, where PyTorch mixes pixels up."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import adapted


class Hybrid(nn.Module):
    """A stem with a norm, its pixels as tokens, a head."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), norm
        self.mix, self.head = nn.Linear(36, 36), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        weights = self.mix.weight[0].unsqueeze(1)
        out: Tensor = self.head((tokens * weights).relu().sum(1))
        return out


def differences(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """The gradient by differences, of one image, [1, 3, H, W]."""
    found = torch.zeros_like(x).flatten()
    for i in range(x.numel()):
        step = torch.zeros_like(found)
        step[i] = 1e-6
        with torch.no_grad():
            up, down = (model(x + sign * step.view_as(x))[0, target] for sign in (1, -1))
        found[i] = (up - down) / 2e-6
    return found.view_as(x)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.InstanceNorm2d(8)])
def test_the_map_of_one_image_is_its_derivative(
    norm: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    model = Hybrid(norm).double().eval().requires_grad_(False)
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.WARNING, "trompe"):
        found = trompe.explainer("gradient")(model, x[:1], 1)
        both = trompe.explainer("gradient")(model, x, 1)
    assert not caplog.records
    torch.testing.assert_close(found, differences(model, x[:1], 1), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found, both[:1])


def test_methods_and_attacks_go_the_same_way() -> None:
    model = Hybrid(nn.BatchNorm2d(8)).double().eval().requires_grad_(False)
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for method in ("guided_backprop", "lrp", "integrated_grad", "grad_cam"):
        explain = trompe.explainer(method)
        torch.testing.assert_close(explain(model, x[:1], 1), explain(model, x, 1)[:1])
    assert trompe.explainer("grad_cam", layer="conv")(model, x[:1], 1).shape == x[:1].shape
    smoothed = trompe.explainer("beta_smoothing", beta=2.0)
    torch.testing.assert_close(smoothed(model, x[:1], 1), smoothed(model, x, 1)[:1])
    result = trompe.manipulate(model, x[:1], torch.rand(12, 12), iterations=2)
    assert result.provenance["remaining_kinks"] == []


def test_a_network_that_needs_nothing_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    assert adapted(model.eval(), torch.rand(1, 3, 6, 6)).model is model
