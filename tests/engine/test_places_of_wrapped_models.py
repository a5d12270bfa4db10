"""Errors name places as the owner of a model does, whatever it is wrapped in to be worked on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.engine.walk import names_of
from trompe.errors import UnsupportedOp


class Block(nn.Module):
    """An operation for which there is no rule."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(x)


class Net(nn.Module):
    """Returns a mapping, so that it is wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Block())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(x).mean((2, 3)))}


@pytest.mark.parametrize("smoothed", [False, True])
def test_a_place_is_named_as_the_model_names_it(smoothed: bool) -> None:
    net = Net().eval()
    model = smooth(net, beta=2.0) if smoothed else net
    with pytest.raises(UnsupportedOp, match=r"at 'body\.2' \(Block\)"):
        trompe.explainer("lrp")(model, torch.rand(1, 3, 8, 8), 0)


def test_the_model_itself_is_called_so() -> None:
    class Whole(Net):
        """Does it in its own forward."""

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(torch.special.i0(self.body[0](x)).mean((2, 3)))}

    with pytest.raises(UnsupportedOp, match=r"at the model \(Whole\)"):
        trompe.explainer("lrp")(Whole().eval(), torch.rand(1, 3, 8, 8), 0)


def test_names_within_wrappers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    for model in (net, smooth(net, beta=2.0)):
        names = names_of(model)
        assert [names[id(one)] for one in net.modules()] == ["", "0", "1", "1.0"]
