"""What is given as an explainer: a name or a function of a model, images and classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe

NET = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
X = torch.ones(1, 3, 4, 4)

CALLS: dict[str, Callable[[Any], object]] = {
    "manipulate": lambda e: trompe.manipulate(NET, X, torch.ones(1, 4, 4), explainer=e),
    "auto_attack": lambda e: trompe.auto_attack(NET, X, explainer=e, budget=0.01),
    "certify": lambda e: trompe.certify(
        NET, X, radius=0.1, method="noise", explainer=e, samples=100, pool=2
    ),
    "detect": lambda e: trompe.detect(NET, X, explainer=e),
}
NONE = [NET, nn.Linear(3, 3), nn.Linear, int, 3, None, b"gradient", ["gradient"], len, lambda x: x]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", NONE, ids=lambda given: type(given).__name__)
def test_what_explains_nothing_is_refused_in_one_line(call: str, given: object) -> None:
    with pytest.raises(trompe.TrompeError, match="explainer must be a name") as refused:
        CALLS[call](given)
    assert len(str(refused.value).splitlines()) == 1


class Gradient(nn.Module):
    def forward(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return trompe.explainer("gradient")(model, x, target)


def test_a_module_that_explains_is_an_explainer() -> None:
    found = trompe.manipulate(NET, X, torch.ones(1, 4, 4), explainer=Gradient(), iterations=1)
    assert found.x_adv.shape == X.shape
