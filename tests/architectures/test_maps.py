"""Maps and their derivatives on the families people use (float64, finite differences)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import trompe
from trompe.engine import kinks
from trompe.rules.composites import Composite
from trompe.rules.epsilon import Epsilon
from trompe.rules.gamma import Gamma
from trompe.rules.norm import Addition

sys.path.insert(0, str(Path(__file__).parent))
from derivatives import slope_error
from families import SMALL, WHOLE, build, images

# Large denominators keep the maps tame enough for finite differences of every network.
TAME = Composite(
    Gamma(0.25, stabiliser=0.1), Epsilon(0.1), addition=Addition(stabiliser=0.1), stabiliser=0.1
)
TARGET = torch.tensor([1])


def check(net: nn.Module, size: int, tolerance: float) -> None:
    x = images(size, 1)
    smoothed = trompe.smooth(net, beta=5.0, pooling=True)
    torch.testing.assert_close(
        trompe.smooth(net, beta=1e5, pooling=True)(x), net(x), atol=1e-2, rtol=1e-2
    )
    methods = [trompe.explainer("gradient"), trompe.explainer("lrp", composite=TAME)]
    activations = {k.operation for k in kinks(net, x).replaced}
    if activations <= {"relu", "hardtanh"}:
        methods.append(trompe.explainer("guided_backprop"))
    for method in methods:
        assert bool(torch.isfinite(method(net, x, TARGET)).all())
        assert slope_error(method, smoothed, x, TARGET) < tolerance, method
    lrp = trompe.explainer("lrp")
    assert bool(torch.isfinite(lrp(net, x, TARGET)).all())


@pytest.mark.parametrize("name", SMALL)
def test_small(name: str) -> None:
    net, size = build(SMALL[name])
    check(net, size, 1e-4)


@pytest.mark.parametrize("name", ["resnet20", "densenet", "mobilenet_v3", "vit", "swin"])
def test_a_batch_is_its_images(name: str) -> None:
    net, size = build(SMALL[name])
    x, target = images(size, 2), torch.tensor([1, 3])
    for composite in ("paper", "epsilon_gamma_box", "attn"):
        method = trompe.explainer("lrp", composite=composite)
        both = method(net, x, target)
        for i in range(2):
            torch.testing.assert_close(
                both[i : i + 1], method(net, x[i : i + 1], target[i : i + 1]), rtol=1e-5, atol=1e-7
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole(name: str) -> None:
    net, size = build(WHOLE[name])
    check(net, size, 1e-4)
