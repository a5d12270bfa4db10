"""Models that recompute their activations are explained as they are without."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.utils.checkpoint as cp
from torch import Tensor, nn

import trompe
from trompe.engine import Smoothed
from trompe.engine.apart import kept

X, TARGET = nets.images(), torch.tensor([0, 3])


class Saving(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        net = nets.plain().double()
        self.body, self.head, self.reentrant = net[:5], net[5:], reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.head(self.body(x))
        return self.head(cp.checkpoint(self.body, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["gradient", "guided_backprop", "lrp", "beta_smoothing"])
def test_as_without(name: str, reentrant: bool) -> None:
    method, saving, plain = trompe.explainer(name), Saving(reentrant), Saving(None)
    for change in (lambda m: m, lambda m: trompe.smooth(m, beta=2.0, pooling=True)):
        found, expected = (method(change(m), X, TARGET) for m in (saving, plain))
        nets.close(found, expected, 1e-12)
        if name == "gradient" and not isinstance(change(saving), Smoothed):
            continue  # of a piecewise linear network: zero
        x = X.clone().requires_grad_(True)
        slopes = [
            torch.autograd.grad(method(change(m), x, TARGET).square().sum(), x)[0]
            for m in (saving, plain)
        ]
        nets.close(slopes[0], slopes[1], 1e-10)


def test_only_while_it_is_asked_for() -> None:
    names = [
        n for n in vars(cp) if n.startswith("_checkpoint_without") or n == "CheckpointFunction"
    ]
    before = {name: getattr(cp, name) for name in names}
    with kept(), kept():
        assert all(getattr(cp, name) is not before[name] for name in names)
    assert {name: getattr(cp, name) for name in names} == before
