"""Methods made of masked copies hold no graph that nobody asked for."""

from __future__ import annotations

import weakref

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import frozen

X = nets.images()
TARGET = torch.tensor([2, 1])
NAMES = ("occlusion", "rise", "lime", "kernel_shap")


class Net(nn.Module):
    """Smooth, so that it can be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.LazyLinear(4))
        self.body(X.float())
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


def alive(model: nn.Module, name: str, chunk: int) -> tuple[int, int]:
    """How many of the activations made are still in memory with the map, and how many were made."""
    explain, made = trompe.explainer(name, chunk=chunk), []
    explain(model, X.double(), TARGET)  # checks on first use
    watched = model.get_submodule("body.0")
    hook = watched.register_forward_hook(lambda *given: made.append(weakref.ref(given[2])))
    heat = explain(model, X.double(), TARGET)
    hook.remove()
    assert heat.shape == X.shape
    return sum(activation() is not None for activation in made), len(made)


@pytest.mark.parametrize("name", NAMES)
def test_no_graph_is_held_that_is_not_wanted(name: str) -> None:
    net = Net().eval()
    held, made = alive(frozen(net), name, 4)
    assert held <= 1  # of the images themselves, for the logits
    assert made > 10
    held, _ = alive(net, name, 4)
    assert held > 10  # for the gradients of the weights


def test_what_holds_much_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    net, explain = Net().eval(), trompe.explainer("occlusion", chunk=4)
    with torch.no_grad():
        explain(net, X.double(), TARGET)
    explain(frozen(net), X.double(), TARGET)
    assert "graphs of all" not in caplog.text
    for _ in range(2):
        explain(net, X.double(), TARGET)
    assert caplog.text.count("graphs of all 64 masked copies") == 1


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_the_same_derivatives_in_chunks(name: str) -> None:
    found = []
    for chunk in (4, 10**6):
        net = Net().eval()
        x = X.double().requires_grad_(True)
        heat = trompe.explainer(name, chunk=chunk)(net, x, TARGET)
        (slope,) = torch.autograd.grad((heat**2).sum(), x, create_graph=True)
        weights = [p for p in net.parameters() if p.dim() == 4]
        found.append([slope, *torch.autograd.grad((slope**2).sum(), weights)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert float(one.abs().max()) > 0
