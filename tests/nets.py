"""Small networks for the tests, and independent twins of them."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.attacks.presets import Preset, preset_for

CLASSES = 4
SIZE = 8


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, parameters without grad, drawn from a seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            values = values.abs() + 0.5
        elif tensor.dim() > 1:
            values *= (2.0 / tensor[0].numel()) ** 0.5
        else:
            values *= 0.3
        tensor.copy_(values)
    return module.eval().requires_grad_(False)


def plain(bias: bool = True, seed: int = 0) -> nn.Sequential:
    """Convolutions, ReLU, max pooling and linear layers: covered by every method."""
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 7, bias=bias),
        nn.ReLU(),
        nn.Linear(7, CLASSES, bias=bias),
    )
    seeded(net, seed)
    return net


class Forms(nn.Module):
    """One function, written in ways that PyTorch allows and that tools based on hooks miss."""

    def __init__(self, form: str = "pure") -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.relu_inplace = nn.ReLU(inplace=True)
        self.head = nn.Linear(2 * 4 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.form)(x)

    def pure(self, x: Tensor) -> Tensor:
        """Residual body, used twice; its two results are put side by side."""
        h = F.relu(self.stem(x))
        h = F.max_pool2d(h, 2)
        first = F.relu(self.body(h) + h)
        second = F.relu(self.body(first))
        return self.head(torch.cat([first, second], dim=1).flatten(1))

    def modules_used(self, x: Tensor) -> Tensor:
        h = nn.MaxPool2d(2)(self.relu(self.stem(x)))
        first = self.relu(torch.add(self.body(h), h))
        second = self.relu(self.body(first))
        return self.head(torch.flatten(torch.cat((first, second), 1), 1))

    def methods(self, x: Tensor) -> Tensor:
        h = torch.max_pool2d(self.stem(x).relu(), 2)
        first = self.body(h).add(h).relu()
        second = torch.relu(self.body(first))
        both = torch.concat([first, second], dim=1)
        return self.head(both.reshape(both.shape[0], -1))

    def inplace_used(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(self.relu_inplace(self.stem(x)), 2)
        first = self.body(h)
        first += h
        first = F.relu(first, inplace=True)
        second = self.body(first).relu_()
        return self.head(torch.cat([first, second], dim=1).view(x.shape[0], -1))

    def inplace_ignored(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h.relu_()
        h = F.max_pool2d(h, 2)
        first = self.body(h)
        first.add_(h)
        self.relu_inplace(first)
        second = self.body(first)
        torch.relu_(second)
        return self.head(torch.cat([first, second], dim=1).flatten(1))

    def written_by_index(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.stem(x)), 2)
        first = F.relu_(self.body(h) + h)
        both = torch.zeros(x.shape[0], 8, *h.shape[2:], dtype=x.dtype)
        both[:, :4] = first
        both[:, 4:] = F.relu(self.body(first))
        return self.head(both.flatten(1))

    def clamped(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(self.stem(x).clamp(min=0), 2)
        first = torch.clamp_min(self.body(h) + h, 0)
        second = torch.clamp(self.body(first), 0)
        return self.head(torch.cat([first, second], dim=1).flatten(1))


FORMS = (
    "modules_used",
    "methods",
    "inplace_used",
    "inplace_ignored",
    "written_by_index",
    "clamped",
)


def forms(form: str = "pure", seed: int = 3) -> Forms:
    """The network ``Forms`` in one of its ways; all have the same weights."""
    net = Forms(form)
    seeded(net, seed)
    return net


class Normed(nn.Module):
    """A residual network with batch norm and average pooling, as ResNets have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.short = nn.Conv2d(4, 4, 1, stride=2)
        self.bn3 = nn.BatchNorm2d(4, affine=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)) + self.bn3(self.short(h)))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


def normed(seed: int = 5) -> Normed:
    """A ``Normed`` in evaluation mode."""
    net = Normed()
    seeded(net, seed)
    return net


def folded(net: Normed) -> Normed:
    """The same function with its batch norms folded into the convolutions by hand."""
    twin = copy.deepcopy(net)
    for conv_name, norm_name in (("conv1", "bn1"), ("conv2", "bn2"), ("short", "bn3")):
        conv, norm = getattr(twin, conv_name), getattr(twin, norm_name)
        gain = 1 / (norm.running_var + norm.eps).sqrt()
        shift = torch.zeros_like(gain)
        if norm.affine:
            gain, shift = gain * norm.weight, norm.bias
        bias = torch.zeros_like(gain) if conv.bias is None else conv.bias
        conv.weight = nn.Parameter(conv.weight * gain.view(-1, 1, 1, 1), requires_grad=False)
        conv.bias = nn.Parameter((bias - norm.running_mean) * gain + shift, requires_grad=False)
        setattr(twin, norm_name, nn.Identity())
    return twin


def images(batch: int = 2, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normalised images without ties, [B, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, SIZE, SIZE, generator=generator, dtype=torch.float64).to(dtype)


def patterns_of(model: nn.Module) -> dict[str, Tensor]:
    """Made-up patterns, where any numbers do."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.1
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }


class Plain(nn.Module):
    """A module around a function."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


def one_beta(**changes: Any) -> Preset:
    """Settings of an attack on gradients with one beta in all layers, and ``changes``.

    Those of ``fast`` before it measured beta in spreads: what is tried with them does not depend on
    how the default is tuned, which on networks as small and random as these is chance.
    """
    usual = {"per_layer": False, "beta_start": 8.0, "output_start": 1e-3, "closeness": 400.0}
    return dataclasses.replace(preset_for("fast", "gradient", SIZE), **{**usual, **changes})


def close(found: Tensor, expected: Tensor, relative: float) -> None:
    """Equal up to a part of the largest value; and not because all is zero."""
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape
    scale = float(expected.abs().max())
    assert scale > 0, "all zero"
    error = float((found - expected).abs().max()) / scale
    assert error <= relative, f"relative error {error:.1e}"
