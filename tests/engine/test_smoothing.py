"""Smoothing a model's kinks without touching the model."""

from __future__ import annotations

import math

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.errors import ModelError, UsageError


def by_hand(x: Tensor, net: nn.Sequential, beta: float, pooling: float) -> Tensor:
    """``nets.plain`` smoothed, written out."""

    def act(z: Tensor) -> Tensor:
        return F.softplus(z, beta=beta, threshold=50)

    h = act(net[0](x))
    if pooling:
        windows = h.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        h = torch.logsumexp(beta * pooling * windows, dim=4) / (beta * pooling)
    else:
        h = F.max_pool2d(h, 2)
    return net[8](act(net[6](act(net[3](h)).flatten(1))))


@pytest.mark.parametrize("beta", [0.8, 30.0])
@pytest.mark.parametrize("pooling", [False, True, 2.5])
def test_every_kink_is_smoothed(beta: float, pooling: float) -> None:
    net, x = nets.plain().double(), nets.images()
    found = smooth(net, beta=beta, pooling=pooling)(x)
    nets.close(found, by_hand(x, net, beta, float(pooling)), 1e-12)
    assert not torch.allclose(found, net(x), rtol=1e-6)
    tensor = torch.tensor(beta, dtype=torch.float64)
    nets.close(smooth(net, beta=tensor, pooling=pooling)(x), found, 1e-12)


@pytest.mark.parametrize("form", nets.FORMS)
def test_however_the_model_is_written(form: str) -> None:
    x = nets.images()
    expected = smooth(nets.forms().double(), beta=1.5, pooling=1.0)(x)
    nets.close(smooth(nets.forms(form).double(), beta=1.5, pooling=1.0)(x), expected, 1e-12)


def test_beta_may_be_set_anew_and_smoothing_does_not_stack() -> None:
    net, x = nets.plain().double(), nets.images()
    smoothed = smooth(net, beta=1.0)
    smoothed.beta = 5.0
    nets.close(smoothed(x), smooth(net, beta=5.0)(x), 1e-14)
    assert smooth(smoothed, beta=2.0).model is net


def test_the_model_is_as_before_inside_and_out() -> None:
    net, x = nets.plain().double(), nets.images()
    expected, state = net(x), dict(net.__dict__)
    smooth(net, beta=1.0)(x)
    assert torch.equal(net(x), expected)
    assert net.__dict__ == state

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        smooth(Fails(), beta=1.0)(x)
    assert torch.equal(F.relu(x), x.clamp(min=0))  # no mode is left behind


def test_other_clamps_are_smoothed_too() -> None:
    class Clamps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(min=0.5) + 2 * torch.clamp(x, max=-0.2)

    x = nets.images()
    expected = 0.5 + F.softplus(x - 0.5, beta=3, threshold=60)
    expected = expected + 2 * (-0.2 - F.softplus(-0.2 - x, beta=3, threshold=60))
    nets.close(smooth(Clamps(), beta=3.0)(x), expected, 1e-12)


def test_indices_of_a_pool_are_still_given() -> None:
    class Indices(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x.relu(), 2, return_indices=True)[0]

    x = nets.images()
    found = smooth(Indices(), beta=2.0, pooling=1.0)(x)
    nets.close(found, F.max_pool2d(F.softplus(x, beta=2, threshold=60), 2), 1e-12)


@pytest.mark.parametrize("beta", [0, -1.0, float("nan"), float("inf"), torch.tensor(-2.0)])
def test_a_beta_that_makes_no_sense_is_refused(beta: float) -> None:
    with pytest.raises(UsageError, match="beta must be positive and finite"):
        smooth(nets.plain(), beta=beta)
    if not isinstance(beta, Tensor):
        with pytest.raises(UsageError, match="beta"):
            trompe.explainer("beta_smoothing", beta=beta)


def test_a_network_without_biases_is_smoothed_at_a_black_image() -> None:
    """Its outputs are 0 there, and nothing is small beside them."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5, bias=False),
    ).eval()
    x = torch.zeros(1, 3, 8, 8)
    dark = torch.full((1, 4 * 36), math.log(2) / 5)
    nets.close(smooth(net, beta=5.0)(x), net[3](dark), 1e-6)


def test_another_function_is_refused_at_a_black_image_too() -> None:
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            smoothed = bool(torch.overrides._get_current_function_mode_stack())
            return x.relu().sum((1, 2)) + (1e-3 if smoothed else 0.0)

    with pytest.raises(ModelError, match="does not tend to the model"):
        smooth(Hidden(), beta=5.0)(torch.zeros(1, 3, 8, 8))
