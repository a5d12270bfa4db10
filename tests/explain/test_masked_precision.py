"""Explanations made of masked images, on models whose outputs are of another type than images."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe

X = nets.images(2, dtype=torch.float32)
TARGET = torch.tensor([0, 1])
METHODS = ("occlusion", "rise", "lime", "kernel_shap")


class Returning(nn.Module):
    """A network that returns its logits in another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = nets.plain(), dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.to(self.dtype)


class Back(nn.Module):
    """The same, made single precision again outside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.float()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_outputs_of_any_type_are_weighed_in_that_of_the_images(
    name: str, dtype: torch.dtype
) -> None:
    method, model = trompe.explainer(name), Returning(dtype).eval()
    found = method(model, X, TARGET)
    assert found.dtype == X.dtype
    nets.close(found, method(Back(model).eval(), X, TARGET), 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_around_a_method_is_that_of_the_model_alone(name: str) -> None:
    """``torch.autocast`` of the caller does not coarsen what is done with the outputs."""
    method = trompe.explainer(name)
    plain = nets.plain()

    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                out: Tensor = plain(x)
            return out

    with torch.autocast("cpu", torch.bfloat16):
        found = method(nets.plain(), X, TARGET)
    assert found.dtype == X.dtype
    nets.close(found, method(Coarse().eval(), X, TARGET), 1e-6)
