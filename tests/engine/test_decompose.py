"""What PyTorch cannot differentiate twice is taken apart without changing its value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import Decomposed, record


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hard_sigmoid_and_its_derivatives() -> None:
    z = (random(40) * 4).requires_grad_(True)
    with Decomposed():
        value = F.hardsigmoid(z)
    torch.testing.assert_close(value, F.hardsigmoid(z))

    def twice(z: Tensor) -> Tensor:
        with Decomposed():
            return F.hardsigmoid(z).square()

    assert torch.autograd.gradgradcheck(twice, (z,))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": random(5, 5, seed=9)},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
    ],
)
def test_fused_attention(options: dict[str, object]) -> None:
    q, k, v = (random(2, 3, 5, 4, seed=i).requires_grad_(True) for i in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, **options)

    def apart(*inputs: Tensor) -> Tensor:
        with Decomposed():
            return F.scaled_dot_product_attention(*inputs, **options)

    torch.testing.assert_close(apart(q, k, v), expected)
    assert torch.autograd.gradgradcheck(apart, (q[:1, :1], k[:1, :1], v[:1, :1]))


def test_fused_attention_with_groups_of_heads() -> None:
    q, k, v = random(2, 4, 5, 3), random(2, 2, 5, 3, seed=1), random(2, 2, 5, 3, seed=2)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with Decomposed():
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "module",
    [
        {},
        {"bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"kdim": 3, "vdim": 5},
        {"batch_first": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(module: dict[str, object], need_weights: bool, masked: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, **module).double().eval()
    first = bool(module.get("batch_first"))
    query = random(2, 4, 8) if first else random(4, 2, 8)
    if "kdim" in module:
        key, value = random(4, 2, 3, seed=1), random(4, 2, 5, seed=2)
    else:
        key = value = query
    options: dict[str, object] = {"need_weights": need_weights}
    if masked:
        options["attn_mask"] = torch.ones(4, 4, dtype=torch.bool).triu(1)
        options["key_padding_mask"] = torch.tensor([[False] * 4, [False, False, False, True]])
    query.requires_grad_(True)
    expected, weights = attention(query, key, value, **options)
    with Decomposed():
        out, seen = attention(query, key, value, **options)
    torch.testing.assert_close(out, expected)
    if need_weights:
        torch.testing.assert_close(seen, weights)


def test_unbatched_attention() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2).double().eval()
    x = random(4, 8).requires_grad_(True)
    expected, weights = attention(x, x, x)
    with Decomposed():
        out, seen = attention(x, x, x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(seen, weights)


def test_attention_is_recorded_in_parts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0].mean(dim=1)

    net = Net().double().eval()
    tape, logits = record(net, random(2, 3, 4).requires_grad_(True))
    names = [call.func.__name__ for call in tape.calls]
    assert names.count("linear") == 2
    assert "softmax" in names
    assert names.count("matmul") == 2
    torch.testing.assert_close(logits, net(tape.input))


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b, c: torch.addcmul(a, b, c, value=2.0),
        lambda a, b, c: a.addmm(b, c, beta=0.5, alpha=3.0),
        lambda a, b, c: torch.baddbmm(a[None], b[None], c[None], beta=0),
    ],
)
def test_sums_with_products(call: Callable[..., Tensor]) -> None:
    a, b, c = (random(4, 4, seed=i) for i in range(3))
    with Decomposed():
        out = call(a, b, c)
    torch.testing.assert_close(out, call(a, b, c))


LOWEST = torch.finfo(torch.float32).min
ROWS = torch.ones(5, 5, dtype=torch.bool)
ROWS[2] = False  # a row that sees nothing
MASKS = {
    "rows that see nothing": ROWS,
    "the same, added": torch.zeros(5, 5).masked_fill(~ROWS, -torch.inf),
    "nothing seen at all": torch.zeros(5, 5, dtype=torch.bool),
    "smallest numbers": torch.zeros(5, 5).masked_fill(~ROWS, LOWEST),
    "smallest numbers everywhere": torch.full((5, 5), LOWEST),
    "per image": torch.stack([ROWS, ~ROWS])[:, None],
    "one key": torch.zeros(5, 5).masked_fill(torch.arange(5) > 0, -torch.inf),
}


@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("name", MASKS)
def test_masked_attention_on_random_and_extreme_inputs(name: str, size: float) -> None:
    q, k, v = (random(2, 3, 5, 4, seed=i).float().mul(size).requires_grad_(True) for i in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=MASKS[name])
    with Decomposed():
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=MASKS[name])
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * size)
    for output in (found, expected):
        (output**2).sum().backward()
        assert bool(torch.isfinite(q.grad).all())
    assert q.grad is not None


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("number", [-torch.inf, LOWEST])
def test_masked_modules_of_attention(number: float, both: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    x = random(2, 4, 8).float()
    padding = torch.zeros(2, 4)
    padding[1] = number  # the second image is padding alone
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), number) if both else None
    options = {"key_padding_mask": padding, "attn_mask": mask, "need_weights": False}
    start = x.clone().requires_grad_(True)
    expected, _ = attention(start, start, start, **options)
    with Decomposed():
        found, _ = attention(start, start, start, **options)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [F.hardsigmoid, F.hardswish])
def test_hard_functions_on_extreme_inputs(function: Callable[[Tensor], Tensor]) -> None:
    numbers = [0.0, -3, 3, 2.9999999, -3.0000001, 1e-30, 1e30, -1e30, 65504]
    x = torch.tensor(numbers, dtype=torch.float64)
    expected = x.clamp(-3, 3).add(3).div(6) * (x if function is F.hardswish else 1)
    with Decomposed():
        torch.testing.assert_close(function(x), expected)
