"""Models that the ensemble meets beside plain classifiers: by chance, of one sigmoid, scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import adapted
from trompe.errors import ModelError, UsageError

SPACE = trompe.InputSpace((0.0,) * 3, (1.0,) * 3)


def body(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)).eval()


class Noisy(nn.Module):
    """Answers by chance, in whatever form it is told."""

    def __init__(self, wrap: Callable[[Tensor], Any], classes: int = 3) -> None:
        super().__init__()
        self.body, self.wrap = body(classes), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.body(x + 0.001 * torch.randn_like(x)))


def images() -> Tensor:
    return torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def rand(model: nn.Module, x: Any, **options: Any) -> Any:
    return trompe.auto_attack(
        model.eval(), x, version="rand", budget=0.01, input_space=SPACE, **options
    )


def test_images_and_answers_of_a_random_model_are_checked_as_any_other() -> None:
    lost = images()
    lost[1, 0, 0, 0] = torch.nan
    with pytest.raises(UsageError, match="not finite"):
        rand(Noisy(lambda y: y), lost)
    with pytest.raises(UsageError, match="3 classes"):
        rand(Noisy(lambda y: y), images(), target=[7, 0])
    with pytest.raises(ModelError, match="not finite"):
        rand(
            Noisy(lambda y: y.masked_fill(torch.tensor([True, False, False]), torch.inf)), images()
        )


def test_a_random_model_may_return_a_mapping() -> None:
    found = rand(Noisy(lambda y: {"logits": y}), images().numpy())
    assert found.target.tolist() == body()(images()).argmax(1).tolist()


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_one_sigmoid_is_on_above_one_half(version: str) -> None:
    model = Noisy(lambda y: y.sigmoid(), 1) if version == "rand" else body(1).append(nn.Sigmoid())
    chance = version == "rand"
    outputs = adapted(model.eval(), images(), by_chance=chance, evaluation=chance).outputs
    assert outputs.kept(torch.tensor([[0.4], [0.6]]), torch.full((2, 1), 0.7)).tolist() == [
        False,
        True,
    ]


def test_a_scripted_model_is_attacked_by_what_can_and_the_rest_is_told() -> None:
    net = torch.jit.trace(body(), images())
    found = trompe.auto_attack(net, images(), budget=0.01, input_space=SPACE)
    assert all("member failed" in flags for flags in found.flags)
    assert found.cost["forward_passes"] > 0
