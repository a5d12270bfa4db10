"""A small network, a plain explainer, and the result of an attack on three images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trompe.report import style
from trompe.types import AttackResult, InputSpace, heatmap


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    scores = model(x).gather(1, target.unsqueeze(1))
    return torch.autograd.grad(scores.sum(), x)[0]


@dataclass
class Case:
    """Everything that ``write_attack`` needs."""

    model: nn.Module
    input_space: InputSpace
    result: AttackResult
    target_pixels: Tensor
    explainer: Callable[[nn.Module, Tensor, Tensor], Tensor] = gradient


def build(channels: int = 3, size: int = 16, count: int = 3) -> Case:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(36, 5),
    ).eval()
    space = InputSpace((0.4,) * channels, (0.2,) * channels)
    pixels = torch.rand(count, channels, size, size, generator=generator)
    noise = torch.randn(pixels.shape, generator=generator)
    x, x_adv = space.from_pixels(pixels), space.from_pixels((pixels + 0.02 * noise).clamp(0, 1))
    target_pixels = torch.rand(count, 3, size, size, generator=generator)
    with torch.no_grad():
        logits, logits_adv = model(x), model(x_adv)
    target_class = logits.argmax(dim=1)
    target_map = torch.rand(count, size, size, generator=generator)
    steps = 4
    result = AttackResult(
        x=x,
        x_adv=x_adv,
        target_class=target_class,
        map_original=heatmap(gradient(model, x, target_class)),
        map_target=heatmap(target_map[:, None]),
        map_adv=heatmap(gradient(model, x_adv, target_class)),
        logits_original=logits,
        logits_adv=logits_adv,
        history={
            "loss": torch.rand(steps, count, generator=generator),
            "beta": torch.full((steps, count), 10.0),
        },
        iterations=steps,
        stopped="finished",
        provenance={},
    )
    return Case(model, space, result, target_pixels)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    return build


@pytest.fixture
def case() -> Case:
    return build()


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 50)
