"""Random small networks of every kind that certificates cover."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor, nn

import trompe


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Concat(nn.Module):
    """Two branches side by side, as in SqueezeNet."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x)], 1)


def _mlp(draw: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    size = draw.randint(2, 12)
    widths = [size, *(draw.randint(2, 14) for _ in range(draw.randint(1, 3)))]
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(widths):
        layers += [nn.Linear(one, other), nn.ReLU()]
        if draw.random() < 0.3:
            layers.append(Residual(nn.Sequential(nn.Linear(other, other), nn.ReLU())))
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3)), (size,)


def _cnn(draw: random.Random) -> tuple[nn.Module, tuple[int, ...]]:
    channels, width = draw.randint(1, 3), draw.randint(2, 4)
    first = nn.Conv2d(channels, width, 3, padding=draw.randint(0, 1), stride=draw.randint(1, 2))
    layers: list[nn.Module] = [first, nn.ReLU()]
    if draw.random() < 0.4:
        norm = nn.BatchNorm2d(width)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        layers.insert(1, norm)
    if draw.random() < 0.3:
        layers.append(Concat(nn.Conv2d(width, 2, 1), nn.Conv2d(width, 2, 3, padding=1)))
        layers.append(nn.ReLU())
        width = 4
    if draw.random() < 0.3:
        inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        layers.append(Residual(inner))
    pool = draw.choice(["max", "avg", "overlap", "none"])
    layers += {
        "max": [nn.MaxPool2d(2)],
        "avg": [nn.AvgPool2d(2)],
        "overlap": [nn.MaxPool2d(3, 1, 1)],
        "none": [],
    }[pool]
    size = draw.randint(5, 6)
    body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5))
    found = body(torch.zeros(2, channels, size, size)).shape[1]
    head = [nn.Linear(found, 5), nn.ReLU(), nn.Linear(5, 3)]
    return nn.Sequential(*body, *head), (channels, size, size)


def random_case(seed: int) -> tuple[nn.Module, Tensor, float, str, str]:
    """A network, a point, a radius, a norm, and a description."""
    draw = random.Random(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = draw.choice(["mlp", "cnn"])
        net, shape = _mlp(draw) if kind == "mlp" else _cnn(draw)
        scale = draw.choice([1.0, 1.0, 2.0])
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(scale)
        x = torch.randn(1, *shape, dtype=torch.float64)
    net = net.double().eval()
    beta = draw.choice([None, None, 0.8, 1.0, 10.0])
    if beta is not None:
        net = trompe.smooth(net, beta=beta, pooling=draw.choice([False, True, True]))
    radius = 10 ** draw.uniform(-3, 0.5)
    norm = draw.choice(["l2", "linf"])
    return net, x, radius, norm, f"{kind}, beta {beta}, {norm}, radius {radius:.3g}"
