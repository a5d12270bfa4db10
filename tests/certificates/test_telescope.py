"""The network linearised at x, and the telescoped bounds, against dense oracles."""

from __future__ import annotations

import math

import pytest
import torch
from random_nets import random_case
from torch import Tensor, nn

import trompe
from trompe.certificates.ball import ball
from trompe.certificates.forward import forward
from trompe.certificates.gate_moves import derivative_move, remainder, turn
from trompe.certificates.gates import LogSumExp, Range, Softplus
from trompe.certificates.jacobian_norms import symmetric_norm, symmetrise
from trompe.certificates.linear_sweep import Sweep
from trompe.certificates.methods import proved
from trompe.certificates.methods.telescope import _argument, _jacobian, _Known, _turned
from trompe.certificates.prepared import Prepared


def wide() -> tuple[nn.Module, Tensor]:
    """Places far apart have nothing in common: their rows are computed in one sweep."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)]
    head = [nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    net = nn.Sequential(*layers, *head).double().eval()
    return trompe.smooth(net, beta=2.0, pooling=True), torch.randn(1, 2, 16, 16).double()


def jacobians_hold(prepared: Prepared, tight: bool) -> None:
    network, at = prepared.network, prepared.linearised
    sweep = Sweep(network, at.slopes)
    for number, found in at.jacobians.items():
        last = network.nodes[number].parents[0]
        shape = prepared.values[last].shape[1:]
        rows = sweep.pull(last, torch.eye(shape.numel()).double().view(-1, *shape))
        assert set(found) == set(rows)
        for source, jacobian in found.items():
            matrix = rows[source].flatten(1)
            norm = float(torch.linalg.matrix_norm(matrix, 2))
            assert (matrix.norm(dim=1) <= jacobian.rows.flatten()).all()
            assert (matrix.abs().sum(dim=1) <= jacobian.sums.flatten()).all()
            assert (matrix.norm(dim=0) <= jacobian.columns.flatten()).all()
            assert norm <= jacobian.norm
            if tight:
                torch.testing.assert_close(matrix.norm(dim=1), jacobian.rows.flatten())
                assert jacobian.norm <= 5 * norm


@pytest.mark.parametrize("seed", range(20))
def test_norms_of_jacobians(seed: int) -> None:
    net, x, *_ = random_case(seed)
    jacobians_hold(Prepared(net, x), tight=False)


def test_rows_computed_together_are_those_computed_alone() -> None:
    prepared = Prepared(*wide())
    sweep = Sweep(prepared.network, prepared.linearised.slopes)
    convolution = [node.name for node in prepared.network.nodes].index("torch.conv2d", 2)
    shape = prepared.values[convolution].shape[1:]
    assert len(sweep._apart(convolution, shape)) < shape[1] * shape[2] / 2
    jacobians_hold(prepared, tight=True)


def test_the_jacobian_is_autograds() -> None:
    net, x = wide()
    prepared = Prepared(net, x, 1)
    exact = torch.autograd.functional.jacobian(lambda x: net(x)[0, 1], x)
    torch.testing.assert_close(prepared.linearised.gradient, exact)


def test_close_to_the_image_it_is_near_the_hessians_norm() -> None:
    net, x = wide()
    prepared = Prepared(net, x, 1)
    hessian = torch.autograd.functional.hessian(lambda x: net(x)[0, 1], x)
    norm = float(torch.linalg.matrix_norm(hessian.view(x.numel(), x.numel()), 2))
    radius = 1e-5
    bound = proved(prepared, ball(radius, "l2"), "telescope").bounds["telescope"]["gradient_l2"]
    assert norm * radius <= bound <= 1.1 * norm * radius


def test_as_a_method_of_certify() -> None:
    net, x = wide()
    telescoped = trompe.certify(net, x, radius=0.01, method="telescope")
    best = trompe.certify(net, x, radius=0.01)
    assert float(best.gradient_l2) <= float(telescoped.gradient_l2)
    interval = trompe.certify(net, x, radius=0.01, method="interval")
    assert float(telescoped.gradient_l2) < float(interval.gradient_l2)


@pytest.mark.parametrize("seed", range(30))
def test_curvatures_and_hessians_of_random_networks(seed: int) -> None:
    net, x, *_ = random_case(seed)
    prepared = Prepared(net, x)
    if not prepared.network.smooth:
        return
    at, network = prepared.linearised, prepared.network
    exact = torch.autograd.functional.hessian(lambda x: net(x)[0, prepared.target], x)
    hessian = exact.view(x.numel(), x.numel())
    norm = float(torch.linalg.matrix_norm(hessian, 2))
    if at.hessian is not None:
        assert norm <= at.hessian.norm <= 1.001 * norm + 1e-9
        assert (hessian.norm(dim=1) <= at.hessian.rows.flatten()).all()
    sweep = Sweep(network, at.slopes)
    for origin, curvature in at.curvatures.items():
        total = torch.zeros_like(hessian)
        for number in (n for n, own in at.origins.items() if own == origin):
            last = network.nodes[number].parents[0]
            shape = prepared.values[last].shape[1:]
            rows = sweep.pull(last, torch.eye(shape.numel()).double().view(-1, *shape))[0]
            matrix = rows.flatten(1)
            total = total + matrix.mT @ (at.weights[number].flatten()[:, None] * matrix)
        found = float(torch.linalg.matrix_norm(total, 2))
        assert found <= curvature.norm
        assert (total.diagonal().sqrt() <= curvature.columns.flatten()).all()


@pytest.mark.parametrize("gate", [Softplus(3.0), LogSumExp(2.0)], ids=["softplus", "logsumexp"])
def test_second_derivatives_in_a_box_stay_within_their_diagonals(
    gate: Softplus | LogSumExp,
) -> None:
    torch.manual_seed(0)
    u = 2 * torch.randn(40, 4, 3).double()
    box = Range(u - torch.rand_like(u), u + torch.rand_like(u))
    curbs, turns = gate.curbs(box), gate.turns(u, box)

    def second(at: Tensor) -> Tensor:
        units = torch.eye(4).double()
        turned = [gate.turn(at, units[i].view(1, 4, 1).expand_as(at)) for i in range(4)]
        return torch.stack(turned, dim=1).permute(0, 3, 1, 2)

    def least(matrix: Tensor) -> float:
        return float(torch.linalg.eigvalsh(matrix).min())

    def diagonal(entries: Tensor) -> Tensor:
        return torch.diag_embed(entries.permute(0, 2, 1))

    for _ in range(50):
        there = box.low + (box.high - box.low) * torch.rand_like(u).round(decimals=1)
        assert least(diagonal(curbs) - second(there)) > -1e-12
        assert least(second(there)) > -1e-12
        moved = second(there) - second(u)
        assert least(diagonal(turns) - moved) > -1e-12
        assert least(diagonal(turns) + moved) > -1e-12


def test_the_norm_of_large_symmetric_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    import trompe.certificates.jacobian_norms as linearised

    torch.manual_seed(0)
    for decay in (0.0, 1.0):
        basis = torch.linalg.qr(torch.randn(300, 300).double()).Q
        values = torch.randn(300).double() / torch.arange(1, 301).double() ** decay
        matrix = (basis * values) @ basis.mT
        matrix = (matrix + matrix.mT) / 2
        exact = float(values.abs().max())
        assert exact <= symmetric_norm(matrix) <= (1 + 1e-6) * exact
        with monkeypatch.context() as patch:
            patch.setattr(linearised, "_DECOMPOSED", 10)
            assert exact <= symmetric_norm(matrix) <= (5 if decay == 0 else 1.1) * exact


@pytest.mark.parametrize("size", [3, 512, 1100])
def test_a_matrix_is_made_symmetric_in_its_place(size: int) -> None:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double()
    expected = (matrix + matrix.mT) / 2
    symmetrise(matrix)
    assert torch.equal(matrix, expected)


@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_how_far_the_second_neuron_and_its_jacobian_move(radius: float) -> None:
    """In one dimension: ``z2' - z2`` and ``J_02'`` at the far end are what telescoping adds up."""
    layers = [nn.Linear(1, 1), nn.Softplus(2.0), nn.Linear(1, 1), nn.Softplus(2.0)]
    net = nn.Sequential(*layers, nn.Linear(1, 2)).double()
    for index in (0, 2, 4):
        nn.init.constant_(net[index].weight, 1.5)
        nn.init.constant_(net[index].bias, -0.1)
    prepared = Prepared(net, torch.zeros(1, 1).double(), 0)
    network, at, within = prepared.network, prepared.linearised, ball(radius, "l2")
    reached = forward(network, prepared.values, within, everywhere=False, dense=False)
    for reach in reached.reach:  # interval arithmetic is exact here: let it say nothing
        reach.change = Range(*(torch.full_like(end, math.inf) for end in reach.change))
        reach.change = Range(-reach.change.low, reach.change.high)
        reach.ball = reach.jacobian = math.inf
    known: dict[int, _Known] = {}
    for number, jacobians in at.jacobians.items():
        before, gate = network.nodes[number].parents[0], network.nodes[number].part
        assert isinstance(gate, Softplus)
        move = _argument(reached, before, jacobians, known, within)
        derivative = derivative_move(gate, move, at.slopes[number])
        jacobian = _jacobian(reached.reach[before], jacobians, _turned(jacobians, known))
        own = remainder(gate, move, derivative), turn(gate, move, derivative)
        known[number] = _Known(own[0], own[1], jacobian)

    def second(x: float) -> float:
        return float(net[:3](torch.full((1, 1), x).double()).detach())

    truth = second(radius) - second(0.0)
    loose = 1.001 if radius < 0.1 else 1.2
    for bound in (move.size, move.entries):
        assert truth <= float(bound) <= loose * truth
    steepest = 1.5**2 * float(torch.sigmoid(torch.tensor(2 * (1.5 * radius - 0.1)).double()))
    assert steepest <= float(jacobian) <= 1.01 * steepest
