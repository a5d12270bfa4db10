"""Signals [B, C, T] and volumes [B, C, D, H, W]: every method against what is known already.

A signal is an image of height one, and a convolution a matrix: so the methods' maps on images and
on vectors, which captum, zennit and autograd check elsewhere, are what those of signals and volumes
have to be.
"""

from __future__ import annotations

import math
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
import zennit.attribution
import zennit.composites
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.explain import explainers

CLASSES = torch.tensor([2, 0])
NEEDS_PATTERNS = {"pattern_attribution", "pattern_net"}
ALL = sorted(set(explainers.names()) - NEEDS_PATTERNS - {"attention_rollout"})
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_grad": {"steps": 5},
    "smoothgrad": {"samples": 3, "sigma": 0.1},
    "uniform_gradient": {"samples": 3},
    "median_smooth": {"samples": 3},
    "expected_gradients": {"samples": 4},
    "rise": {"samples": 20, "cells": 3},
    "lime": {"samples": 30, "segments": 3},
    "kernel_shap": {"samples": 30, "segments": 3},
    "grad_cam": {"positive": False},
}


def method(name: str, **more: Any) -> trompe.explain.Method:
    found = {key: value for key, value in OPTIONS.get(name, {}).items()}
    known = {field for field in explainers[name].__dataclass_fields__}
    return trompe.explainer(name, **{k: v for k, v in (found | more).items() if k in known})


def signal_net() -> nn.Sequential:
    torch.manual_seed(3)
    return (
        nn.Sequential(
            nn.Conv1d(2, 6, 5, padding=2),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
        .double()
        .eval()
    )


def of_height_one(net: nn.Sequential) -> nn.Sequential:
    """The same network of images [B, C, 1, T]."""
    layers: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, nn.Conv1d):
            (size,), (step,), pad = layer.kernel_size, layer.stride, int(layer.padding[0])
            flat = nn.Conv2d(
                layer.in_channels, layer.out_channels, (1, size), (1, step), (0, pad)
            ).double()
            flat.weight.data = layer.weight.data.unsqueeze(2)
            assert layer.bias is not None
            assert flat.bias is not None
            flat.bias.data = layer.bias.data
            layers.append(flat)
        elif isinstance(layer, nn.BatchNorm1d):
            norm = nn.BatchNorm2d(layer.num_features).double()
            norm.load_state_dict(layer.state_dict())
            layers.append(norm)
        elif isinstance(layer, nn.MaxPool1d):
            layers.append(nn.MaxPool2d((1, 2)))
        elif isinstance(layer, nn.AvgPool1d):
            layers.append(nn.AvgPool2d((1, 2)))
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def volume_net() -> nn.Sequential:
    torch.manual_seed(4)
    return (
        nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(4, 3, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3 * 2 * 2 * 1, 3),
        )
        .double()
        .eval()
    )


def as_matrices(net: nn.Sequential, x: Tensor) -> nn.Sequential:
    """The same network of vectors, its convolutions written out as matrices."""
    layers: list[nn.Module] = []
    for layer in net:
        after = layer(x)
        if isinstance(layer, nn.Conv3d):
            dense = nn.Linear(x[0].numel(), after[0].numel()).double()
            with torch.no_grad():
                zero = layer(torch.zeros_like(x[:1])).flatten()
                units = torch.eye(x[0].numel(), dtype=x.dtype).unflatten(1, x.shape[1:])
                dense.weight.copy_((layer(units).flatten(1) - zero).t())
                dense.bias.copy_(zero)
            layers.append(dense)
        elif not isinstance(layer, nn.Flatten):
            layers.append(layer)
        x = after
    return nn.Sequential(*layers).eval()


def signals() -> Tensor:
    return torch.randn(2, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def volumes() -> Tensor:
    shape = (2, 2, 6, 5, 4)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"grad_cam", "rise"}))
def test_a_signal_is_an_image_of_height_one(name: str) -> None:
    net, x = signal_net(), signals()
    images = method(name)(of_height_one(net), x.unsqueeze(2), CLASSES)
    nets.close(method(name)(net, x, CLASSES), images.squeeze(2), 1e-9)


# Of volumes, methods that work entry by entry; what has a baseline per channel or draws noise of
# another shape is the same there too. Coarse masks are counted out below.
@pytest.mark.parametrize(
    "name", sorted(set(ALL) - {"grad_cam", "rise", "lime", "kernel_shap", "occlusion", "lrp"})
)
def test_a_volume_is_a_vector_under_matrices(name: str) -> None:
    net, x = volume_net(), volumes()
    vectors = method(name)(as_matrices(net, x), x.flatten(1), CLASSES)
    nets.close(method(name)(net, x, CLASSES).flatten(1), vectors, 1e-9)


def signal_net_without_norm() -> nn.Sequential:
    net = signal_net()
    net[1] = nn.Identity()
    return net


@pytest.mark.parametrize(
    ("make", "x"), [(signal_net_without_norm, signals()), (volume_net, volumes())]
)
@pytest.mark.parametrize(
    ("composite", "theirs"),
    [
        ("epsilon_plus", zennit.composites.EpsilonPlus),
        ("epsilon_plus_flat", zennit.composites.EpsilonPlusFlat),
        ("epsilon_alpha2_beta1", zennit.composites.EpsilonAlpha2Beta1),
        ("epsilon_alpha2_beta1_flat", zennit.composites.EpsilonAlpha2Beta1Flat),
        ("epsilon_gamma_box", zennit.composites.EpsilonGammaBox),
    ],
)
def test_lrp_agrees_with_zennit(composite: str, theirs: Any, make: Any, x: Tensor) -> None:
    net, x = make(), x.clamp(-1.5, 1.5)
    space = trompe.InputSpace((0.5, 0.5), (0.25, 0.25))
    options = {"low": -2.0 + 0 * x, "high": 2.0 + 0 * x} if "box" in composite else {}
    found = trompe.explainer("lrp", composite=composite).within(space)(net, x, CLASSES)
    with zennit.attribution.Gradient(net.requires_grad_(True), theirs(**options)) as attribute:
        _, expected = attribute(x.clone(), net(x).detach() * F.one_hot(CLASSES, 3))
    nets.close(found, expected, 1e-5)


@pytest.mark.parametrize(("make", "x"), [(signal_net, signals()), (volume_net, volumes())])
def test_gradients_are_those_of_autograd(make: Any, x: Tensor) -> None:
    net, x = make(), x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(x).gather(1, CLASSES.view(-1, 1)).sum(), x)
    nets.close(method("gradient")(net, x.detach(), CLASSES), expected, 1e-12)
    nets.close(method("grad_times_input")(net, x.detach(), CLASSES), x * expected, 1e-12)


@pytest.mark.parametrize(
    ("make", "x", "layer", "mode"),
    [(signal_net, signals(), 5, "linear"), (volume_net, volumes(), 1, "trilinear")],
)
def test_grad_cam_weighs_channels_by_their_mean_gradient(
    make: Any, x: Tensor, layer: int, mode: str
) -> None:
    net = make()
    maps = net[: layer + 1](x).detach().requires_grad_()
    score = net[layer + 1 :](maps).gather(1, CLASSES.view(-1, 1)).sum()
    (slope,) = torch.autograd.grad(score, maps)
    weights = slope.flatten(2).mean(dim=2).view(*slope.shape[:2], *[1] * (x.dim() - 2))
    cam = (weights * maps).sum(dim=1, keepdim=True)
    cam = F.interpolate(cam, size=x.shape[2:], mode=mode, align_corners=False)
    found = trompe.explainer("grad_cam", positive=False, layer=str(layer))(net, x, CLASSES)
    nets.close(found, cam.expand_as(x) / x.shape[1], 1e-12)


def test_occlusion_of_a_volume_covers_every_box() -> None:
    net, x = volume_net(), volumes()
    window, stride = (3, 2, 2), (2, 2, 1)
    before = net(x).gather(1, CLASSES.view(-1, 1))[:, 0]
    total, count = torch.zeros(2, 6, 5, 4).double(), torch.zeros(6, 5, 4).double()
    starts = [
        [step * i for i in range(math.ceil((side - size) / step) + 1)]
        for side, size, step in zip(x.shape[2:], window, stride, strict=True)
    ]
    for a in starts[0]:
        for b in starts[1]:
            for c in starts[2]:
                box = (slice(a, a + 3), slice(b, b + 2), slice(c, c + 2))
                hidden = x.clone()
                hidden[(slice(None), slice(None), *box)] = 0
                lost = before - net(hidden).gather(1, CLASSES.view(-1, 1))[:, 0]
                total[(slice(None), *box)] += lost.view(-1, 1, 1, 1)
                count[box] += 1
    found = trompe.explainer("occlusion", window=window, stride=stride)(net, x, CLASSES)
    nets.close(found.sum(dim=1), (total / count).detach(), 1e-12)
    with pytest.raises(UsageError, match="2 numbers for 3 sides"):
        trompe.explainer("occlusion", window=(2, 2))(net, x, CLASSES)
    with pytest.raises(UsageError, match="4 numbers for 3 sides"):
        trompe.explainer("occlusion", window=(2, 2, 2, 2))(net, x, CLASSES)


@pytest.mark.parametrize(("make", "x"), [(signal_net, signals()), (volume_net, volumes())])
def test_masks_cover_places_of_all_channels_alike(make: Any, x: Tensor) -> None:
    """RISE, LIME and KernelSHAP from their definitions, written out over the places."""
    net, sides = make(), tuple(x.shape[2:])
    drawn = torch.rand(12, *sides, generator=torch.Generator().manual_seed(5)).double()
    scores = torch.stack([net(x * m).gather(1, CLASSES.view(-1, 1))[:, 0] for m in drawn])
    expected = torch.einsum("mb,m...->b...", scores, drawn) / (12 * 0.5)
    found = trompe.explainer("rise", masks=drawn, score="logit")(net, x, CLASSES)
    nets.close(found.sum(dim=1), expected.detach(), 1e-12)
    labels = torch.zeros(sides, dtype=torch.int64)
    labels[sides[0] // 2 :] = 1  # of two segments, the Shapley values are these
    shap = trompe.explainer("kernel_shap", segments=labels, samples=8)(net, x, CLASSES)
    half = (labels == 0).double()
    value = [
        net(x * m).gather(1, CLASSES.view(-1, 1))[:, 0] for m in (half * 0, half, 1 - half, half**0)
    ]
    first = ((value[1] - value[0]) + (value[3] - value[2])) / 2
    nets.close(shap.sum(dim=1).flatten(1)[:, 0], first.detach(), 1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("make", "x"), [(signal_net, signals()), (volume_net, volumes())])
def test_the_map_is_differentiable(name: str, make: Any, x: Tensor) -> None:
    """Central differences in float64, as an attack needs the derivative."""
    from trompe.engine import smooth

    net = smooth(make(), beta=2.0, pooling=True)
    explain = method(name, cells=2, seed=0)
    toward = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(6))
    weight = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(7))
    start = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((explain(net, start, CLASSES) * weight).sum(), start)
    step = 1e-5

    def at(share: float) -> float:
        return float((explain(net, x + share * step * toward, CLASSES) * weight).sum().detach())

    expected = (at(1) - at(-1)) / (2 * step)
    assert float((slope * toward).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("make", "x"), [(signal_net, signals()), (volume_net, volumes())])
def test_the_map_of_a_batch_is_that_of_each(name: str, make: Any, x: Tensor) -> None:
    found = method(name)(make(), x, CLASSES)
    assert found.shape == x.shape
    heat = trompe.heatmap(found)
    assert heat.shape == x.shape  # channels of signals and volumes are maps of their own
    nets.close(heat.flatten(1).sum(dim=1), torch.ones(2).double(), 1e-9)
    if not method(name).draws or name in {"rise", "lime", "kernel_shap"}:
        alone = method(name)(make(), x[1:], CLASSES[1:])
        nets.close(found[1:], alone, 1e-9)
