"""What PyTorch cannot differentiate twice is taken apart without changing its value."""

from __future__ import annotations

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
