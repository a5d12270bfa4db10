"""Sums of terms of both signs: against slow loops, and never more than was received."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import OpCall, record
from trompe.engine.sweep import Rule
from trompe.errors import UnsupportedOp
from trompe.rules.sums import Resampling, SignedAddition, SignedProduct, SignedSum, Spread

EPS = 1e-9


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


def shared_out(terms: Tensor, relevance: Tensor) -> Tensor:
    """One sum at a time: the terms [in, out] of the sign of their sum share its relevance."""
    out = torch.zeros_like(terms)
    for j in range(terms.shape[1]):
        total = float(terms[:, j].detach().sum())
        kept = [float(t) if float(t) * total > 0 else 0.0 for t in terms[:, j]]
        for i, term in enumerate(kept):
            out[i, j] = abs(term) / (sum(abs(k) for k in kept) + EPS) * relevance[j]
    return out


ADDITIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = {
    "a + b": (lambda a, b: a + b, 1, 1),
    "a - b": (lambda a, b: a - b, 1, -1),
    "a - 2 b": (lambda a, b: torch.sub(a, b, alpha=2), 1, -2),
    "b - a": (lambda a, b: torch.rsub(a, b), -1, 1),
    "a + 3 b": (lambda a, b: torch.add(a, b, alpha=3), 1, 3),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_addition(name: str) -> None:
    function, first, second = ADDITIONS[name]
    op, r = recorded(function, (4, 5), (4, 5))
    a, b = (alias.detach().flatten() for _, alias in op.edges)
    expected = shared_out(torch.stack([first * a, second * b]), r.flatten())
    for share, wanted in zip(SignedAddition(EPS)(r, op), expected, strict=True):
        assert share is not None
        torch.testing.assert_close(share.flatten(), wanted)


def test_addition_of_a_broadcast_term_and_of_a_constant() -> None:
    op, r = recorded(lambda a, b: a - b, (4, 5), (1, 5))
    a, b = (alias for _, alias in op.edges)
    terms = torch.stack([a.flatten(), -b.expand(4, 5).flatten()])
    expected = shared_out(terms, r.flatten()).view(2, 4, 5)
    first, second = SignedAddition(EPS)(r, op)
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first, expected[0])
    torch.testing.assert_close(second, expected[1].sum(dim=0, keepdim=True))
    op, r = recorded(lambda a: a + 2, (4, 5))
    assert SignedAddition(EPS)(r, op)[0] is r


SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "average pooling": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 3),
    "mean": lambda x: x.mean(dim=(2, 3)),
    "sum": lambda x: torch.sum(x, dim=1),
    "running sum": lambda x: torch.cumsum(x, dim=-1),
    "overlapping patches": lambda x: F.fold(x.view(1, 10, 5)[:, :8, :4], (3, 3), (2, 2)),
    "bilinear": lambda x: F.interpolate(x, size=7, mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, size=10),
}


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_sum(name: str, nonnegative: bool) -> None:
    function = SUMS[name]
    op, r = recorded(lambda x: function(x.abs() if nonnegative else x), (1, 2, 5, 5))
    op.notes.nonnegative = nonnegative
    x = op.edges[0][1].detach()
    matrix = torch.autograd.functional.jacobian(lambda v: op.func(v, *op.args[1:], **op.kwargs), x)
    terms = matrix.reshape(r.numel(), x.numel()).T * x.flatten()[:, None]
    expected = shared_out(terms, r.flatten()).sum(dim=1)
    rule: Rule = SignedSum(EPS)
    if op.func is F.interpolate:
        rule = Resampling(rule)
    (share,) = rule(r, op)
    assert share is not None
    torch.testing.assert_close(share.flatten(), expected, rtol=1e-6, atol=1e-8)


def test_an_average_that_changes_nothing_passes_all_on() -> None:
    op, r = recorded(lambda x: F.adaptive_avg_pool2d(x, (4, 4)), (1, 2, 4, 4))
    assert SignedSum(EPS)(r, op)[0] is r


def test_interpolation_with_weights_of_both_signs_is_refused() -> None:
    op, r = recorded(lambda x: F.interpolate(x, size=7, mode="bicubic"), (1, 2, 5, 5))
    with pytest.raises(UnsupportedOp, match="bilinearly"):
        Resampling(SignedSum(EPS))(r, op)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": torch.matmul,
    "einsum": lambda a, b: torch.einsum("ij,jk->ik", a, b),
}


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("name", PRODUCTS)
def test_product_of_activations(name: str, carry: bool) -> None:
    op, r = recorded(PRODUCTS[name], (3, 4), (4, 2))
    a, b = (alias.detach() for _, alias in op.edges)
    with torch.set_grad_enabled(carry):
        left, right = SignedProduct(EPS)(r, op)
    assert left is not None
    assert right is not None
    assert left.requires_grad == carry
    terms = (a[:, :, None] * b[None]).permute(1, 0, 2).flatten(1)  # [4, 3 * 2]
    share = shared_out(terms, r.flatten()).view(4, 3, 2) / 2
    torch.testing.assert_close(left, share.sum(dim=2).T)
    torch.testing.assert_close(right, share.sum(dim=1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_product_with_a_constant_is_a_layer_under_z_plus(side: str) -> None:
    draw = torch.Generator().manual_seed(1)
    constants = torch.randn(2, 4, 4, dtype=torch.float64, generator=draw)  # two: no F.linear
    left = side == "left"
    op, r = recorded(lambda x: constants @ x if left else x @ constants, (2, 4, 4))
    (share,) = SignedProduct(EPS)(r, op)
    assert share is not None
    for one, relevance, constant, got in zip(
        op.edges[0][1].detach(), r, constants, share, strict=True
    ):
        rows, arrived, weight = (
            (one.T, relevance.T, constant) if left else (one, relevance, constant.T)
        )  # [out, in]
        expected = torch.zeros_like(one)
        for k in range(4):
            terms = (rows[k][:, None] * weight.T).clamp(min=0)  # [in, out]
            expected[k] = (terms / (terms.sum(dim=0) + EPS) * arrived[k]).sum(dim=1)
        torch.testing.assert_close(got, expected.T if left else expected)


def test_products_of_one_and_of_three() -> None:
    op, r = recorded(lambda x: torch.einsum("ij->i", x), (3, 4))
    x = op.edges[0][1].detach()
    (share,) = SignedProduct(EPS)(r, op)
    assert share is not None
    for i in range(3):
        torch.testing.assert_close(share[i], shared_out(x[i][:, None], r[i : i + 1]).flatten())
    op, r = recorded(lambda a, b: torch.einsum("i,i,ij->j", a, a, b), (3,), (3, 2))
    with pytest.raises(UnsupportedOp, match="two at a time"):
        SignedProduct(EPS)(r, op)


@pytest.mark.parametrize("degree", [1, 2])
def test_spread(degree: int) -> None:
    function = torch.std if degree == 1 else torch.var
    for dims in (None, (1,), (0, 1)):
        op, r = recorded(lambda x, d=dims: function(x) if d is None else function(x, dim=d), (3, 4))
        x = op.edges[0][1].detach()
        (share,) = Spread(EPS, degree)(r, op)
        mean = x.mean() if dims is None else x.mean(dim=dims, keepdim=True)
        squares = (x - mean) ** 2
        whole = squares.sum() if dims is None else squares.sum(dim=dims, keepdim=True)
        given = r if dims != (1,) else r[:, None]
        torch.testing.assert_close(share, squares / whole * given, rtol=1e-6, atol=1e-8)


CASES: dict[str, tuple[Rule, Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "addition": (SignedAddition(), lambda a, b: a + b, ((300,), (300,))),
    "average": (SignedSum(), lambda x: F.avg_pool1d(x, 3), ((1, 1, 300),)),
    "product": (SignedProduct(), torch.matmul, ((20, 15), (15, 20))),
}


@pytest.mark.parametrize("name", CASES)
def test_where_terms_cancel_no_more_is_sent_on_than_received(name: str) -> None:
    """Shares by contribution would be hundreds of times as large here."""
    rule, function, shapes = CASES[name]
    op, r = recorded(function, *shapes)
    shares = [share for share in rule(r, op) if share is not None]
    sent = sum(float(share.abs().sum()) for share in shares)
    assert sent <= float(r.abs().sum()) * (1 + 1e-9)
    assert sum(float(share.sum()) for share in shares) == pytest.approx(float(r.sum()), rel=1e-4)
