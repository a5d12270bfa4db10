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


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("beta", [None, 0.8, 5.0])
def test_against_the_formula(beta: float | None, hard: bool, graph: bool) -> None:
    net = two_layers()
    model = net if beta is None else smooth(net, beta=beta)
    x = X.clone().requires_grad_(graph)
    found = trompe.explainer("guided_backprop", hard_cut=hard)(model, x, TARGET).detach()

    def act(z: Tensor) -> Tensor:
        return z.relu() if beta is None else F.softplus(z, beta=beta, threshold=60)

    def cut(relevance: Tensor, z: Tensor) -> Tensor:
        if beta is None:
            return relevance.clamp(min=0) * (z > 0)
        signal = relevance.clamp(min=0) if hard else act(relevance)
        return signal * torch.sigmoid(beta * z)

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


def test_the_derivative_of_the_hard_cut_is_that_of_its_gates() -> None:
    """Central differences of the map along random directions, in double precision."""
    model = smooth(two_layers(), beta=3.0)
    method = trompe.explainer("guided_backprop", hard_cut=True)
    draw = torch.Generator().manual_seed(3)
    weights, way = (torch.randn(X.shape, generator=draw, dtype=X.dtype) for _ in range(2))

    def score(x: Tensor) -> Tensor:
        return (method(model, x, TARGET) * weights).flatten(1).sum(dim=1)

    x = X.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(score(x).sum(), x)
    step = 1e-6
    differences = (score(X + step * way) - score(X - step * way)).detach() / (2 * step)
    expected = (slope * way).flatten(1).sum(dim=1)
    assert float(expected.abs().min()) > 1e-6
    torch.testing.assert_close(differences, expected, rtol=1e-5, atol=1e-9)


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


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    ("activation", "said"),
    [(nn.GELU(), 1), (nn.SiLU(), 1), (nn.ReLU(), 0), (nn.ReLU6(), 0), (nn.Hardtanh(0, 2), 0)],
)
def test_a_model_without_a_rectifier_is_said_to_have_the_gradients_map(
    method: str, activation: nn.Module, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), activation, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).eval()
    x, target = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    for _ in range(2):
        trompe.explainer(method)(model, x, target)
    lines = [record for record in caplog.records if "has no ReLU" in record.getMessage()]
    assert len(lines) == said


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_bend_too_sharp_for_derivatives_is_a_kink_and_no_relu(method: str) -> None:
    net = two_layers()
    net[2] = nn.Softplus(beta=1e6)
    with pytest.raises(UnsupportedOp, match=r"softplus' at 2 .* is no ReLU"):
        trompe.explainer(method)(net, X, TARGET)
    expected = trompe.explainer("deeplift")(two_layers(), X, TARGET)
    nets.close(trompe.explainer("deeplift")(net, X, TARGET), expected, 1e-6)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_hidden_relu_is_not_called_none(method: str) -> None:
    net = two_layers()
    net[2] = torch.jit.script(nn.ReLU())
    with pytest.raises(UnsupportedOp, match=r"at 2 .* is hidden in a scripted or traced part"):
        trompe.explainer(method)(net, X, TARGET)
