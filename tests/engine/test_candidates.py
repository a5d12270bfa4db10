"""Pooling that goes over candidates, not places, is told from pooling that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import record
from trompe.engine.candidates import over_candidates
from trompe.errors import UnsupportedOp

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

CANDIDATES: dict[str, Callable[[Tensor], Tensor]] = {
    "stacked last": lambda h: F.max_pool2d(
        torch.stack([h, torch.zeros_like(h)], -1).flatten(1, 2), (1, 2)
    ),
    "stacked within": lambda h: F.max_pool3d(torch.stack([h, -h], 2), (2, 1, 1)),
    "in a row": lambda h: F.max_pool1d(
        torch.stack([h, torch.zeros_like(h)], -1).flatten(0, -2)[:, None], 2
    ).view(h.shape),
    "adaptive": lambda h: F.adaptive_max_pool1d(
        torch.stack([h, torch.zeros_like(h)], -1).flatten(1, -2), 1
    ),
    "joined": lambda h: F.max_pool3d(torch.cat([h[:, :, None], -h[:, :, None]], 2), (2, 1, 1)),
    "groups of channels": lambda h: F.max_pool3d(h.view(-1, 4, 2, 6, 6), (2, 1, 1)),
    "over channels": lambda h: F.max_pool1d(h.flatten(2).transpose(1, 2), 2),
}
PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "2x2": lambda h: F.max_pool2d(h, 2),
    "padded": lambda h: F.max_pool2d(F.pad(h, (0, 1, 0, 1)), 3, 2),
    "of a row": lambda h: F.max_pool1d(h.flatten(2), 4),
    "after a concatenation": lambda h: F.max_pool2d(torch.cat([h, h.relu()], 1), 2),
    "after a sum": lambda h: F.max_pool2d(h + h.relu(), 2),
    "adaptive": lambda h: F.adaptive_max_pool2d(h, 1),
    "largest": lambda h: h.amax((2, 3)),
    "largest of a row": lambda h: h.flatten(2).max(-1).values,
    "channels last and back": lambda h: F.max_pool2d(
        (h.permute(0, 2, 3, 1) * 2).permute(0, 3, 1, 2), 2
    ),
}


class Net(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool = nn.Conv2d(3, 8, 3), pool

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.conv(x)).flatten(1)
        return h @ torch.linspace(-1, 1, h.shape[1] * 3, dtype=h.dtype).view(-1, 3)


def plain_gradient(net: nn.Module) -> Tensor:
    x = X.clone().requires_grad_(True)
    logits = net(x)
    return torch.autograd.grad((logits[:, 0] * logits[:, 0].sign().detach()).sum(), x)[0]


@pytest.mark.parametrize("name", CANDIDATES)
def test_guided_methods_refuse_maxima_of_candidates(name: str) -> None:
    net = Net(CANDIDATES[name]).double().eval()
    assert over_candidates(record(net, X.clone().requires_grad_(True))[0]) is not None
    for method in ("guided_backprop", "deconvnet"):
        with pytest.raises(UnsupportedOp, match="goes over candidates, not places"):
            trompe.explainer(method)(net, X, 0)


@pytest.mark.parametrize("name", PLACES)
def test_guided_methods_pass_pooling(name: str) -> None:
    """Without a ReLU on the way back, the guided signal is the gradient's."""
    net = Net(PLACES[name]).double().eval()
    assert over_candidates(record(net, X.clone().requires_grad_(True))[0]) is None
    if "sum" in name or "concatenation" in name:
        trompe.explainer("guided_backprop")(net, X, 0)
        return
    found = trompe.explainer("guided_backprop")(net, X, 0)
    torch.testing.assert_close(found.abs(), plain_gradient(net).abs())
