"""Models without a derivative, or with one that is not finite, are refused in one line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import ExplanationError, ModelError


class Rounded(nn.Module):
    """Computes with bytes on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head((x.clamp(0, 1) * 255).byte().to(x).flatten(1))
        return out


class Root(nn.Module):
    """Takes a root where there is one, and zero else."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.where(x > 0, x.sqrt(), torch.zeros_like(x)).flatten(1))
        return out


def test_an_attack_on_a_model_without_a_gradient_is_refused() -> None:
    with pytest.raises(ModelError, match="does not depend differentiably"):
        trompe.manipulate(Rounded().eval(), torch.rand(1, 3, 4, 4), torch.rand(4, 4), iterations=1)


@pytest.mark.parametrize("method", ["gradient", "grad_times_input"])
def test_a_map_that_is_not_finite_is_refused(method: str) -> None:
    x = torch.rand(2, 3, 4, 4)
    x[1, 0, 0, 0] = -1.0
    with pytest.raises(ExplanationError, match=r"map of image 1 is not finite.*torch\.where"):
        trompe.explainer(method)(Root().eval(), x, 0)
