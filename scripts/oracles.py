"""Maps by code that is not trompe's, for the table of architectures.

The gradient and what is made of it by PyTorch alone; LRP by zennit on the networks that it has
canonisers for, or needs none: where all that happens between layers are activations, poolings and
the skip connections of torchvision's ResNets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn

import trompe
from trompe.errors import TrompeError
from trompe.zoo.tiny import TinyVGG

PLAIN = (tv.AlexNet, tv.VGG, tv.SqueezeNet, TinyVGG)
RECTIFIED = (tv.AlexNet, tv.VGG, tv.SqueezeNet, TinyVGG)
"""Networks without sums of terms of both signs, on which the rules of the paper are zennit's."""


def _gradient(model: nn.Module, x: Tensor, target: Tensor, probability: bool = False) -> Tensor:
    start = x.clone().requires_grad_(True)
    scores = model(start)
    scores = scores.softmax(dim=1) if probability else scores
    (gradient,) = torch.autograd.grad(scores.gather(1, target.view(-1, 1)).sum(), start)
    return gradient


def _by_autograd(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """With the settings of ``trompe.cli.coverage``: integrated gradients in two steps."""
    gradient = _gradient(model, x, target)
    halves = [_gradient(model, t * x, target, probability=True) for t in (0.5, 1.0)]
    return {
        "gradient": gradient,
        "grad_times_input": x * gradient,
        "integrated_grad": x * (halves[0] + halves[1]) / 2,
    }


def _zennit_composites(like: Tensor, paper: bool) -> dict[str, Callable[..., Any]]:
    import zennit.composites as theirs
    import zennit.rules as rules
    import zennit.types as types

    space = trompe.InputSpace()
    low, high = (
        torch.tensor(end, dtype=like.dtype).view(1, -1, 1, 1) for end in (space.low, space.high)
    )
    found: dict[str, Callable[..., Any]] = {
        "epsilon_plus": theirs.EpsilonPlus,
        "epsilon_plus_flat": theirs.EpsilonPlusFlat,
        "epsilon_gamma_box": lambda **options: theirs.EpsilonGammaBox(low, high, **options),
        "alpha2_beta1_flat": theirs.EpsilonAlpha2Beta1Flat,
        "epsilon_alpha2_beta1": theirs.EpsilonAlpha2Beta1,
        "epsilon": lambda **options: theirs.LayerMapComposite(
            [*theirs.layer_map_base(), (types.Linear, rules.Epsilon())], **options
        ),
    }
    if paper:
        ends = (torch.full_like(like, end) for end in (min(space.low), max(space.high)))
        box = rules.ZBox(*ends, stabilizer=1e-9, zero_params="bias")
        plus = rules.ZPlus(stabilizer=1e-9, zero_params="bias")
        found["paper"] = lambda **options: theirs.SpecialFirstLayerMapComposite(
            layer_map=[*theirs.layer_map_base(stabilizer=1e-9), (types.Linear, plus)],
            first_map=[(types.Linear, box)],
            **options,
        )
    return found


def _by_zennit(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    residual = isinstance(model, tv.ResNet)
    if not residual and not isinstance(model, PLAIN):
        return {}
    with torch.no_grad():
        logits = model(x)
    seed = torch.zeros_like(logits).scatter(1, target.view(-1, 1), 1.0) * logits
    found = {}
    for name, composite in _zennit_composites(x, isinstance(model, RECTIFIED)).items():
        net = copy.deepcopy(model).requires_grad_(True)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):  # zennit 0.5.1 folds it, and leaves its eps
                module.running_var.data += module.eps
                module.eps = 0.0
        canonisers = [ResNetCanonizer() if residual else VGGCanonizer()]
        with Gradient(net, composite(canonizers=canonisers)) as attribute:
            found[f"lrp {name}"] = attribute(x.clone(), seed)[1].detach()
    return found


def agreement(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, tuple[str, float]]:
    """Per method that has one: the oracle, and by how much the map differs from it.

    Args:
        model: In double precision and evaluation mode, parameters without grad.
        x: Images [B, C, H, W] within the bounds of the default input space.
        target: The class of each, [B].

    Returns:
        The difference is relative to the largest entry of the map.
    """
    from trompe.cli.coverage import candidates

    known, found = candidates(), {}
    for source, maps in (
        ("autograd", _by_autograd(model, x, target)),
        ("zennit", _by_zennit(model, x, target)),
    ):
        for name, expected in maps.items():
            try:
                ours = known[name]()(model, x, target)
            except TrompeError:
                continue
            error = float((ours - expected).abs().max() / expected.abs().max())
            found[name] = (source, error)
    return found
