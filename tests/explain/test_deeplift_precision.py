"""DeepLIFT's slopes where image and baseline are close, or numbers are coarse."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn

import trompe

CLASSES = torch.tensor([1, 3])
ACTIVATIONS = (nn.ReLU, nn.ELU, nn.Softplus, nn.Sigmoid, nn.Tanh)


def network(activation: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        activation(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(8 * 5 * 7, 5),
    ).eval()


def images(share: float) -> tuple[Tensor, Tensor]:
    """Two images and baselines that differ from them by about ``share``."""
    generator = torch.Generator().manual_seed(1)
    x, away = (torch.randn(2, 3, 10, 14, generator=generator) for _ in range(2))
    return x, x + share * away


def captum_map(model: nn.Module, x: Tensor, baseline: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lift = DeepLift(copy.deepcopy(model).double(), eps=1e-10)
        found = lift.attribute(x.double(), baselines=baseline.double(), target=CLASSES)
    return found.detach()


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("share", [1.0, 1e-3, 1e-5])
def test_a_close_baseline_gives_no_rounding_noise(
    activation: type[nn.Module], share: float
) -> None:
    model, (x, baseline) = network(activation), images(share)
    found = trompe.explainer("deeplift", baseline=baseline)(model, x, CLASSES)
    assert error(found, captum_map(model, x, baseline)) < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_as_exact_as_its_numbers(activation: type[nn.Module]) -> None:
    model, (x, baseline) = network(activation).bfloat16(), images(1.0)
    x, baseline = x.bfloat16(), baseline.bfloat16()
    found = trompe.explainer("deeplift", baseline=baseline)(model, x, CLASSES)
    assert found.dtype == torch.bfloat16
    assert error(found, captum_map(model, x, baseline)) < 0.02
