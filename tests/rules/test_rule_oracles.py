"""Each rule against a slow form of it: loops over a dense matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import OpCall, record
from trompe.engine.sweep import Rule
from trompe.rules.alpha_beta import AlphaBeta, z_plus
from trompe.rules.epsilon import Epsilon
from trompe.rules.flat import Flat, WSquare
from trompe.rules.fold import fold, fold_before
from trompe.rules.gamma import Gamma
from trompe.rules.norm import Addition, Norm
from trompe.rules.normalisation import BatchNorm, GroupNorm, LayerNorm
from trompe.rules.products import MatrixProduct, divided, gated, glu, softmax
from trompe.rules.signs import mark_nonnegative
from trompe.rules.z_box import ZBox

EPS = 1e-6


def stable(z: Tensor) -> Tensor:
    return z + EPS * torch.where(z >= 0, 1.0, -1.0)


def by_contribution(z: Tensor, bias: Tensor, relevance: Tensor) -> Tensor:
    """Share out by the contributions ``z`` [in, out]."""
    return (z / stable(z.sum(dim=0) + bias) * relevance).sum(dim=1)


def pos(z: Tensor) -> Tensor:
    return z.clamp(min=0)


def neg(z: Tensor) -> Tensor:
    return z.clamp(max=0)


Oracle = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def gamma_oracle(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    z = x[:, None] * w
    total = z.sum(dim=0) + b
    up = by_contribution(z + 0.25 * pos(z), b + 0.25 * pos(b), r * (total > 0))
    return up + by_contribution(z + 0.25 * neg(z), b + 0.25 * neg(b), r * (total < 0))


def box_oracle(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    low, high = torch.full_like(x, -2.0), torch.full_like(x, 3.0)
    z = x[:, None] * w - low[:, None] * pos(w) - high[:, None] * neg(w)
    return by_contribution(z, torch.zeros_like(b), r)


LINEAR: dict[str, tuple[Rule, Oracle]] = {
    "epsilon": (Epsilon(), lambda x, w, b, r: by_contribution(x[:, None] * w, b, r)),
    "z_plus": (z_plus(), lambda x, w, b, r: by_contribution(pos(x[:, None] * w), pos(b), r)),
    "z_plus without bias": (
        z_plus(bias=False),
        lambda x, w, b, r: by_contribution(pos(x[:, None] * w), 0 * b, r),
    ),
    "alpha_beta": (
        AlphaBeta(3, 2),
        lambda x, w, b, r: (
            3 * by_contribution(pos(x[:, None] * w), pos(b), r)
            - 2 * by_contribution(neg(x[:, None] * w), neg(b), r)
        ),
    ),
    "gamma": (Gamma(0.25), gamma_oracle),
    "z_box": (ZBox(), box_oracle),
    "flat": (Flat(), lambda x, w, b, r: by_contribution((w != 0).to(w.dtype), 0 * b, r)),
    "w_square": (WSquare(), lambda x, w, b, r: by_contribution(w**2, b**2, r)),
}

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "conv": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 2, dilation=2), (2, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 2, 3)),
    "conv, batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)),
        (2, 4, 3),
    ),
    "batch norm, conv": (
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1)),
        (2, 4, 3),
    ),
}


def settled(layer: nn.Module) -> nn.Module:
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.uniform_(0.3, 1.5)
    return layer.double().eval().requires_grad_(False)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", LINEAR)
def test_linear_rule(rule: str, layer: str, nonnegative: bool) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    net = settled(make())
    x = torch.randn(2, *shape, dtype=torch.float64).clamp(-2, 3)
    x = (x.abs() if nonnegative else x).requires_grad_(True)
    if layer == "batch norm, conv" and rule == "z_box":
        pytest.skip("z_B belongs to the input itself")
    tape, out = record(net, x)
    fold(tape)
    fold_before(tape)
    mark_nonnegative(tape)
    (op,) = (op for op in tape.calls if op.func is not F.batch_norm)
    op.notes.nonnegative = nonnegative and op.notes.shift is None
    low, high = torch.tensor([-2.0, 3.0], dtype=torch.float64).split(1)
    op.notes.bounds = (low, high)
    relevance = torch.randn_like(out)
    (share,) = LINEAR[rule][0](relevance, op)
    for one, r, got in zip(x.detach(), relevance, share, strict=True):
        matrix = torch.autograd.functional.jacobian(lambda v: net(v[None])[0].flatten(), one)
        matrix = matrix.reshape(r.numel(), one.numel()).T
        bias = net(torch.zeros_like(one)[None])[0].flatten()
        expected = LINEAR[rule][1](one.flatten(), matrix, bias, r.flatten())
        torch.testing.assert_close(got.flatten(), expected, rtol=1e-8, atol=1e-9)


def recorded(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> tuple[OpCall, Tensor]:
    """The record of ``function`` on parts of one random input, and random relevance."""
    sizes = [torch.Size(shape).numel() for shape in shapes]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            parts = x.split(sizes)
            return function(*(p.view(s) for p, s in zip(parts, shapes, strict=True)))

    torch.manual_seed(2)
    tape, out = record(Net(), torch.randn(sum(sizes), dtype=torch.float64, requires_grad=True))
    return tape.calls[-1], torch.randn_like(out)


def test_matrix_product() -> None:
    op, r = recorded(torch.matmul, (3, 4), (4, 2))
    a, b = (alias for _, alias in op.edges)
    left, right = MatrixProduct(EPS)(r, op)
    z = a[:, :, None] * b[None]  # [3, 4, 2]
    share = z / stable(z.sum(dim=1, keepdim=True)) * r[:, None] / 2
    torch.testing.assert_close(left, share.sum(dim=2))
    torch.testing.assert_close(right, share.sum(dim=0))


def test_softmax() -> None:
    op, r = recorded(lambda x: F.softmax(x, dim=-1), (3, 4))
    x = op.edges[0][1]
    (share,) = softmax(r, op)
    for i in range(3):
        for j in range(4):
            expected = x[i, j] * (r[i, j] - op.out[i, j] * r[i].sum())
            torch.testing.assert_close(share[i, j], expected)


def test_gate_and_quotient() -> None:
    op, r = recorded(torch.mul, (2, 3, 4, 4), (2, 3, 1, 1))
    x, gate = gated(r, op)
    torch.testing.assert_close(x, r / 2)
    torch.testing.assert_close(gate, (r / 2).sum(dim=(2, 3), keepdim=True))
    op, r = recorded(torch.div, (2, 3), (2, 1))
    x, norm = divided(r, op)
    assert norm is None
    torch.testing.assert_close(x, r)
    op, r = recorded(lambda x: F.glu(x, 1), (2, 6))
    torch.testing.assert_close(glu(r, op)[0], torch.cat([r, r], 1) / 2)


def test_addition() -> None:
    op, r = recorded(torch.add, (2, 3), (2, 3))
    a, b = (alias for _, alias in op.edges)
    first, second = Addition()(r, op)
    torch.testing.assert_close(first, a / stable(a + b) * r)
    torch.testing.assert_close(second, b / stable(a + b) * r)
    for share in Addition("equal")(r, op):
        torch.testing.assert_close(share, r / 2)
    op, r = recorded(lambda x: x + 2, (2, 3))
    x = op.edges[0][1]
    assert Addition()(r, op)[0] is r
    torch.testing.assert_close(Addition(constants=True)(r, op)[0], x / stable(x + 2) * r)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.interpolate(x, size=7, mode="bilinear"),
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda x: torch.sum(x, dim=1),
    ],
)
def test_norm(function: Callable[[Tensor], Tensor]) -> None:
    op, r = recorded(function, (1, 2, 5, 5))
    x = op.edges[0][1].detach()
    matrix = torch.autograd.functional.jacobian(function, x).reshape(r.numel(), x.numel())
    contribution = matrix.T * x.flatten()[:, None]
    expected = by_contribution(contribution, torch.zeros(r.numel()), r.flatten())
    torch.testing.assert_close(Norm(EPS)(r, op)[0].flatten(), expected)


def test_layer_norm_and_group_norm() -> None:
    weight, bias = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    op, r = recorded(lambda x: F.layer_norm(x, (6,), weight, bias), (3, 6))
    x = op.edges[0][1]
    std = (x.var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    centring = torch.eye(6, dtype=torch.float64) - 1 / 6
    expected = torch.stack(
        [by_contribution(x[i][:, None] * centring * weight / std[i], bias, r[i]) for i in range(3)]
    )
    torch.testing.assert_close(LayerNorm(EPS)(r, op)[0], expected)
    op, r = recorded(lambda x: F.group_norm(x, 1, eps=1e-5), (3, 6))
    (grouped,) = GroupNorm(EPS)(r, op)
    x = op.edges[0][1]
    std = (x.var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = torch.stack(
        [by_contribution(x[i][:, None] * centring / std[i], 0 * bias, r[i]) for i in range(3)]
    )
    torch.testing.assert_close(grouped, expected)


def test_batch_norm_alone() -> None:
    norm = settled(nn.BatchNorm2d(2))
    op, r = recorded(norm, (2, 2, 3, 3))
    op.notes.slope = slope = norm.weight / (norm.running_var + norm.eps).sqrt()
    x = op.edges[0][1]
    expected = x * slope.view(-1, 1, 1) / stable(op.out) * r
    torch.testing.assert_close(BatchNorm(EPS)(r, op)[0], expected)
