"""Guided backpropagation on a network written out by hand, ReLU and smoothed."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.errors import UnsupportedOp

X, TARGET = nets.images(), torch.tensor([0, 3])


def two_layers() -> nn.Sequential:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)
    )
    nets.seeded(net)
    net[5].weight.abs_()  # else all is cut at once
    return net.double()


@pytest.mark.parametrize("beta", [None, 0.8, 5.0])
def test_against_the_formula(beta: float | None) -> None:
    net = two_layers()
    model = net if beta is None else smooth(net, beta=beta)
    found = trompe.explainer("guided_backprop")(model, X, TARGET)

    def act(z: Tensor) -> Tensor:
        return z.relu() if beta is None else F.softplus(z, beta=beta, threshold=60)

    def cut(relevance: Tensor, z: Tensor) -> Tensor:
        if beta is None:
            return relevance.clamp(min=0) * (z > 0)
        return act(relevance) * torch.sigmoid(beta * z)

    z1 = net[1](net[0](X))
    z2 = net[3](act(z1))
    logits = net[5](act(z2))
    expected = []
    for i in range(2):
        scale = logits[i, TARGET[i]].abs()
        relevance = scale * net[5].weight[TARGET[i]]
        relevance = cut(relevance, z2[i]) @ net[3].weight
        relevance = cut(relevance, z1[i]) @ net[1].weight
        expected.append(relevance / scale)
    nets.close(found.flatten(1), torch.stack(expected), 1e-12)


class Clamp(nn.Module):
    def __init__(self, *bounds: float) -> None:
        super().__init__()
        self.bounds = bounds

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(*self.bounds)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_clamps_at_zero_are_cut_and_others_are_refused(name: str) -> None:
    net, method = two_layers(), trompe.explainer(name)
    expected = method(net, X, TARGET)
    net[2] = net[4] = Clamp(0)
    nets.close(method(net, X, TARGET), expected, 1e-14)
    net[2] = net[4] = Clamp(-0.1, 9)
    with pytest.raises(UnsupportedOp, match="is no ReLU"):
        method(net, X, TARGET)


@pytest.mark.parametrize("beta", [None, 2.0])
@pytest.mark.parametrize("graph", [False, True])
def test_a_relu_with_a_cap_against_the_formula(beta: float | None, graph: bool) -> None:
    """``relu(R) [0 < z < cap]`` for guided backpropagation, ``relu(R)`` for the deconvnet."""
    net, cap = two_layers(), 2.0
    net[2] = net[4] = Clamp(0, cap)
    model = net if beta is None else smooth(net, beta=beta)

    def act(z: Tensor) -> Tensor:
        return z.relu() if beta is None else F.softplus(z, beta=beta, threshold=60)

    def gate(z: Tensor) -> Tensor:
        if beta is None:
            return ((z > 0) & (z < cap)).to(z)
        return torch.sigmoid(beta * z) - torch.sigmoid(beta * (z - cap))

    z1 = net[1](net[0](X))
    z2 = net[3](act(z1) - act(z1 - cap))
    logits = net[5](act(z2) - act(z2 - cap))
    for name, uses_gate in (("guided_backprop", True), ("deconvnet", False)):
        expected = []
        for i in range(2):
            scale = logits[i, TARGET[i]].abs()
            relevance = scale * net[5].weight[TARGET[i]]
            for z, layer in ((z2, net[3]), (z1, net[1])):
                relevance = act(relevance) * (gate(z[i]) if uses_gate else 1) @ layer.weight
            expected.append(relevance / scale)
        found = trompe.explainer(name)(model, X.clone().requires_grad_(graph), TARGET)
        nets.close(found.detach().flatten(1), torch.stack(expected), 1e-12)
