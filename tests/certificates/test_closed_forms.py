"""Networks whose worst case is known in closed form: every certificate comes close to it.

A bound must lie within [1, 1.01] of the true worst case where the certificate is tight by
construction, within a stated factor elsewhere: a halved radius or remainder falls out of that.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates import certificates
from trompe.certificates.ball import ball
from trompe.certificates.gate_moves import ArgumentMove, derivative_move, remainder, turn
from trompe.certificates.gates import Gate, LogSumExp, Range, Relu, Softplus
from trompe.certificates.upper import Upper
from trompe.norms import NORMS as NAMED

BETA = 2.0
LOCAL = ("interval", "jacobian", "telescope", "best")
NORMS = ("frobenius", "global")


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def close(bound: Tensor | float, truth: float, factor: float = 1.01) -> None:
    assert truth <= float(bound) <= factor * truth


class Neuron(nn.Module):
    """``u.x + v softplus(w.x + b)`` as class 0, its negative as class 1."""

    def __init__(self, u: list[float], w: list[float], b: float, v: float) -> None:
        super().__init__()
        self.skip, self.hidden = nn.Linear(len(u), 1, bias=False), nn.Linear(len(w), 1)
        self.act, self.scale, self.out = nn.Softplus(BETA), v, nn.Linear(1, 2, bias=False)
        self.double()
        with torch.no_grad():
            self.skip.weight[:] = double([u])
            self.hidden.weight[:] = double([w])
            self.hidden.bias[:] = b
            self.out.weight[:] = double([[1.0], [-1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.skip(x) + self.scale * self.act(self.hidden(x)))


def certify(net: nn.Module, x: list[float], method: str, **options: object) -> trompe.Certificate:
    point, target = double([x]), torch.tensor([0])
    return trompe.certify(net, point, method=method, target=target, **options)


def test_every_certificate_has_a_closed_form_here() -> None:
    elsewhere = {"noise"}  # half spaces, in test_noise.py
    assert set(certificates) == {*LOCAL, *NORMS, "smoothgrad", *elsewhere}


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("method", LOCAL)
def test_a_single_neuron(method: str, radius: float, norm: str) -> None:
    """Its gradient is ``v w s(z)``, and z moves by the dual norm of w times the radius."""
    w, b, v = [0.6, -0.8, 1.2], 0.3, 1.7
    length = math.sqrt(sum(one * one for one in w))
    reach = radius * {"l1": max(map(abs, w)), "l2": length, "linf": sum(map(abs, w))}[norm]
    slopes = [sigmoid(BETA * (b + side * reach)) - sigmoid(BETA * b) for side in (-1, 1)]
    truth = abs(v) * length * max(map(abs, slopes))
    found = certify(Neuron([0.0] * 3, w, b, v), [0.0] * 3, method, radius=radius, norm=norm)
    # Without Jacobians the dual norm of l1 is bounded by the l2 norm.
    loose = norm == "l1" and method in ("interval", "telescope")
    close(found.gradient_l2, truth, 1.01 * length / max(map(abs, w)) if loose else 1.01)


@pytest.mark.parametrize("method", NORMS)
def test_layer_norms_on_a_single_neuron(method: str) -> None:
    """They take the largest second derivative, beta / 4: tight where the neuron is at 0."""
    w, v, radius = [0.6, -0.8, 1.2], 1.7, 0.01
    length = math.sqrt(sum(one * one for one in w))
    net = Neuron([0.0] * 3, w, 0.0, v)
    truth = abs(v) * length * (sigmoid(BETA * length * radius) - 0.5)
    # The Frobenius norm of the two outputs' layer is sqrt(2), of the one explained 1.
    factor = 1.01 if method == "global" else 1.01 * math.sqrt(2)
    close(certify(net, [0.0] * 3, method, radius=radius).gradient_l2, truth, factor)
    close(certify(net, [0.0] * 3, method, radius=radius).curvature, v * length**2 / 2, factor)


@pytest.mark.parametrize("method", [*LOCAL, "global"])
def test_normal_heat_map_and_ranks_across_the_gradient(method: str) -> None:
    """The gradient is ``(1, a)`` with ``|a| <= s(radius) - 1/2``, and 1 along the first pixel."""
    net, radius = Neuron([1.0, -0.5], [0.0, 1.0], 0.0, 1.0), 0.1
    a = sigmoid(BETA * radius) - 0.5
    found = certify(net, [0.0, 0.0], method, radius=radius)
    close(found.gradient_l2, a)
    close(found.normal_l2, 2 * math.sin(math.atan(a) / 2))
    loose = 1.01 if method in LOCAL else 1.12  # a ball of gradients may also shrink the first
    close(found.heatmap_l1, 2 * a / (1 + a), loose)


@pytest.mark.parametrize("method", LOCAL)
def test_the_largest_pixel_stays_up_to_the_radius_where_another_passes_it(method: str) -> None:
    net = Neuron([0.2, -0.5], [0.0, 1.0], 0.0, 1.0)
    radius = math.log(0.7 / 0.3) / BETA  # a = 0.2
    kept = [
        float(certify(net, [0.0, 0.0], method, radius=share * radius).topk_overlap(1))
        for share in (0.99, 1.01)
    ]
    assert kept == [1.0, 0.0]


@pytest.mark.parametrize("method", [*LOCAL, *NORMS])
def test_a_relu_within_reach_and_out_of_reach(method: str) -> None:
    """Off at x, it adds all of its gradient once its kink is within reach, nothing before."""

    def found(radius: float, norm: str = "l2") -> float:
        net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2, bias=False)).double()
        with torch.no_grad():
            net[0].weight[:] = torch.tensor([[3.0, 4.0]])
            net[0].bias[:] = -1.0
            net[2].weight[:] = torch.tensor([[2.0], [0.0]])
        return float(certify(net, [0.0, 0.0], method, radius=radius, norm=norm).gradient_l2)

    close(found(0.201), 10.0)
    close(found(1 / 7 + 1e-3, "linf"), 10.0)
    if method in LOCAL:
        assert found(0.199) < 1e-9
        assert found(1 / 7 - 1e-3, "linf") < 1e-9


@pytest.mark.parametrize("method", LOCAL)
def test_max_pooling_changes_its_winner(method: str) -> None:
    """The gradient jumps from one pixel to the next: sqrt(2), once they can be equal."""
    net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    nn.init.ones_(net[2].weight)
    x = double([[[[1.0, 0.0]]]])
    near = trompe.certify(net, x, radius=0.49, norm="linf", method=method)
    far = trompe.certify(net, x, radius=0.51, norm="linf", method=method)
    assert float(near.gradient_l2) < 1e-9
    close(far.gradient_l2, math.sqrt(2))
    close(far.heatmap_l1, 2.0)


@pytest.mark.parametrize("method", LOCAL)
def test_smooth_pooling_shares_out_its_gradient(method: str) -> None:
    """The first pixel's share is ``s(beta (x1 - x2))``, and what it gains the second loses."""
    net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    nn.init.ones_(net[2].weight)
    smooth = trompe.smooth(net, beta=BETA, pooling=True)
    x, radius = double([[[[0.2, 0.1]]]]), 0.05
    move = [abs(sigmoid(BETA * (0.1 + 2 * s * radius)) - sigmoid(BETA * 0.1)) for s in (-1, 1)]
    found = trompe.certify(smooth, x, radius=radius, norm="linf", method=method)
    close(found.gradient_l2, math.sqrt(2) * max(move), 1.1 if method == "telescope" else 1.01)


@pytest.mark.parametrize(
    ("method", "radius", "factor"),
    [
        ("interval", 0.003, 3.6),
        ("interval", 0.3, 1.98),
        ("jacobian", 0.003, 1.01),
        ("jacobian", 0.3, 1.65),
        ("telescope", 0.003, 1.01),
        ("telescope", 0.3, 1.98),
        ("best", 0.003, 1.01),
        ("best", 0.3, 1.65),
    ],
)
def test_two_neurons_one_after_the_other(method: str, radius: float, factor: float) -> None:
    """In one dimension the worst case is found by trying all points."""
    layers = [nn.Linear(1, 1), nn.Softplus(BETA), nn.Linear(1, 1), nn.Softplus(BETA)]
    net = nn.Sequential(*layers, nn.Linear(1, 2)).double()
    with torch.no_grad():
        for index, (weight, bias) in {0: (1.5, 0.1), 2: (-2.0, 1.4), 4: (1.0, 0.0)}.items():
            net[index].weight.fill_(weight)
            net[index].bias.fill_(bias)

    def slope(x: Tensor) -> Tensor:
        first = BETA * (1.5 * x + 0.1)
        second = 1.4 - 2 * torch.log1p(first.exp()) / BETA
        return -3 * torch.sigmoid(first) * torch.sigmoid(BETA * second)

    grid = torch.linspace(-radius, radius, 20_001).double()
    truth = float((slope(grid) - slope(torch.zeros(1).double())).abs().max())
    found = certify(net, [0.0], method, radius=radius)
    close(found.gradient_l2, truth, factor)


@pytest.mark.parametrize("gate", [Softplus(BETA), Relu()], ids=["softplus", "relu"])
def test_remainder_and_turn_of_one_unit(gate: Gate) -> None:
    """``e = s(z') - s(z) - D (z' - z)`` and ``D' - D`` over an interval, in closed form."""
    z, step = 0.05, 0.06
    point, edge = double([[z]]), double([[step]])
    move = ArgumentMove(
        z=point,
        off=torch.zeros(1, 1).double(),
        entries=Upper(edge),
        size=Upper(step),
        drift=Upper(0.0),
        box=Range(point - edge, point + edge),
    )
    derivative = derivative_move(gate, move, gate.slope(point))
    ends = double([[z - step], [z + step]])
    e = gate.value(ends) - gate.value(point) - gate.slope(point) * (ends - point)
    turned = (gate.slope(ends) - gate.slope(point)).abs().max()
    # Of the ReLU the slopes' move alone is known, which counts all of the interval for it.
    close(remainder(gate, move, derivative), float(e.abs().max()), 1.02 if gate.bend < 9 else 6.1)
    close(turn(gate, move, derivative), float(turned))


def test_remainder_of_smooth_pooling() -> None:
    """Two pixels that move against each other: the second order counts both, with factor 2."""
    gate, step = LogSumExp(BETA), 0.01
    z = double([[[0.0], [0.0]]])
    edge = torch.full_like(z, step)
    move = ArgumentMove(
        z=z,
        off=torch.zeros_like(z),
        entries=Upper(edge),
        size=Upper(edge).norm(),
        drift=Upper(0.0),
        box=Range(z - edge, z + edge),
    )
    derivative = derivative_move(gate, move, gate.slope(z))
    ends = z + double([[[step], [-step]]])
    close(remainder(gate, move, derivative), float(gate.value(ends) - gate.value(z)), 1.05)


class Sharp(nn.Module):
    """Class 0 where ``|x| > 1``, class 1 elsewhere, all but surely."""

    def forward(self, x: Tensor) -> Tensor:
        score = 1e4 * (x[:, 0, 0, :1].abs() - 1)
        return torch.cat([score, -score], 1)


def test_smoothgrad_of_two_half_lines() -> None:
    """``G(x) = Phi(x - 1) + Phi(-x - 1)``: at 0 it bends as much as any score can."""
    radius, x = 0.02, torch.zeros(1, 1, 1, 1)
    density = [math.exp(-((radius + s) ** 2) / 2) / math.sqrt(2 * math.pi) for s in (-1, 1)]
    found = trompe.certify(
        Sharp(),
        x,
        radius=radius,
        method="smoothgrad",
        sigma=1.0,
        samples=2,
        target=torch.tensor([0]),
    )
    close(found.gradient_l2, density[0] - density[1])


@pytest.mark.parametrize("norm", NAMED)
def test_balls_against_the_definitions(norm: str) -> None:
    torch.manual_seed(0)
    within, offset = ball(0.7, norm), torch.randn(50, 2, 3).double()
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    size = torch.linalg.vector_norm(offset.flatten(1), ord=order, dim=1)
    assert torch.allclose(within.norm.size(offset), size)
    inside = within.project(offset)
    assert (within.norm.size(inside) <= 0.7 * (1 + 1e-12)).all()
    assert torch.equal(within.project(0.1 * inside), 0.1 * inside)
    assert not ball(0.0, norm).project(offset).any()
    assert torch.allclose(within.project(inside), inside)
    # No point of the ball is nearer: optimality in the direction of every other point of it.
    others = within.project(torch.randn(400, 2, 3).double() * 3).flatten(1)
    gap = (offset - inside).flatten(1)
    assert ((gap[:, None] * (others - inside.flatten(1)[:, None])).sum(-1) <= 1e-9).all()
    # A linear form rises by its dual norm, attained along ``ascent``.
    rise = (offset * within.norm.ascent(offset)).flatten(1).sum(1) * 0.7
    assert torch.allclose(within.norm.size(within.norm.ascent(offset)), torch.ones(50).double())
    assert not within.norm.ascent(torch.full((1, 2, 3), torch.nan)).any()
    assert torch.allclose(rise, within.dual(offset.flatten(1).mT), rtol=1e-8)
    assert ((offset.flatten(1) @ others.mT).amax(1) <= rise * (1 + 1e-9)).all()
    known = {"l2": offset.flatten(1).norm(dim=1), "l1": offset.flatten(1).abs().sum(dim=1)}
    assert (0.7 * within.norm.dual_of(**known) >= rise * (1 - 1e-12)).all()
    corner = within.norm.ascent(torch.ones(1, 6).double()) * 0.7
    assert float(corner.norm()) == pytest.approx(within.l2(6), rel=1e-8)
