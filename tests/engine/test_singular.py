"""What is smooth by its name and no number, or a magnitude, on what it gets counts as a kink."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import kinks

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

MAGNITUDES: dict[str, Callable[[Tensor], Tensor]] = {
    "float_power": lambda x: torch.float_power(x * x, 0.5),
    "fourth root": lambda x: (x**4) ** 0.25,
    "root of a copy": lambda x: (x * x.clone()).sqrt(),
    "norm beside zero": lambda x: torch.stack([x, torch.zeros_like(x)], -1).norm(dim=-1),
    "over its magnitude": lambda x: (x * x.clone()) * (x * x.clone()).rsqrt(),
    "logarithm without a number": lambda x: x.log().nan_to_num(nan=0.0, neginf=0.0),
    "mended in place": lambda x: x.log().nan_to_num_(nan=0.0, neginf=0.0),
    "root in place": lambda x: (x * x) * (x * x).rsqrt_(),
    "sum of what is a number": lambda x: x.log().nansum((2, 3)),
}
SHARP: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": lambda x: F.softplus(x, beta=1e6),
    "softplus, narrow": lambda x: F.softplus(x * 1e6) / 1e6,
    "gated": lambda x: x * torch.sigmoid(1e5 * x),
    "gated in place": lambda x: x * (1e5 * x).sigmoid_(),
    "gelu": lambda x: F.gelu(1e5 * x) / 1e5,
    "silu": lambda x: F.silu(1e5 * x) / 1e5,
    "step": lambda x: x * (1 + torch.tanh(1e5 * x)) / 2,
    "error function": lambda x: x * (1 + torch.erf(1e5 * x)) / 2,
    "of two": lambda x: torch.logaddexp(x * 1e5, torch.zeros_like(x)) / 1e5,
    "of a row": lambda x: torch.stack([x * 1e5, torch.zeros_like(x)]).logsumexp(0) / 1e5,
    "choice": lambda x: torch.stack([x * 1e5, torch.zeros_like(x)], -1).softmax(-1)[..., 0] * x,
    "softsign": lambda x: x * (1 + F.softsign(1e6 * x)) / 2,
    "log": lambda x: -F.logsigmoid(-1e5 * x) / 1e5,
}
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "deviation": lambda x: (x.var((2, 3), keepdim=True) + 1e-5).sqrt(),
    "norm over channels": lambda x: x.norm(dim=1),
    "root mean square": lambda x: x.pow(2).mean(1).add(1e-6).rsqrt(),
    "numbers throughout": lambda x: x.exp().nan_to_num() + x.nansum((2, 3), keepdim=True),
    "attention that sees nothing": lambda x: (
        x.masked_fill(torch.arange(6).view(6, 1) > 3, -torch.inf).softmax(-1).nan_to_num()
    ),
    "in place": lambda x: x.exp().sqrt_().nan_to_num_().clamp_min_(1e-12),
    "cube": lambda x: x**3,
    "root of an exponential": lambda x: x.exp().sqrt(),
    "softplus": lambda x: F.softplus(x, beta=100),
    "gates": lambda x: (
        F.gelu(x) + F.silu(10 * x) + x * x.sigmoid() + x.tanh() + F.mish(x) + F.softsign(9 * x)
    ),
    "one word to see": lambda x: x.masked_fill(
        torch.arange(6) > 0, torch.finfo(x.dtype).min
    ).softmax(-1),
    "legacy mask": lambda x: (x + (torch.arange(6) > 0) * -10000.0).softmax(-1),
}


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", MAGNITUDES)
def test_magnitudes_remain(name: str) -> None:
    assert kinks(Net(MAGNITUDES[name]), X).uncovered


@pytest.mark.parametrize("name", SHARP)
def test_bends_that_no_derivative_sees_remain(name: str) -> None:
    assert kinks(Net(SHARP[name]), X).uncovered


@pytest.mark.parametrize("name", SMOOTH)
def test_what_stays_off_zero_is_smooth(name: str) -> None:
    assert not kinks(Net(SMOOTH[name]), X).kinks
