"""Models that torch.jit.freeze has taken all attributes from."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import trompe
from trompe.errors import TrompeError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def pair(activation: nn.Module | None = None) -> tuple[nn.Module, nn.Module]:
    """A network and its frozen script."""
    torch.manual_seed(0)
    curved = activation or nn.SiLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), curved, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return net, torch.jit.freeze(torch.jit.script(net))


@pytest.mark.parametrize("name", ["gradient", "smoothgrad", "integrated_grad", "occlusion"])
def test_their_maps_are_those_of_the_network(name: str) -> None:
    net, script = pair()
    method = trompe.explainer(name)
    torch.testing.assert_close(method(script, X, 0), method(net, X, 0))


def test_an_attack_on_them_is_that_on_the_network() -> None:
    aim = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    found = [trompe.manipulate(one, X, aim, preset="fast", iterations=5) for one in pair()]
    torch.testing.assert_close(found[0].x_adv, found[1].x_adv)
    assert not torch.equal(found[0].x_adv, X)


def test_what_needs_their_operations_is_refused() -> None:
    _, script = pair()
    with pytest.raises(TrompeError, match="recorded"):
        trompe.explainer("lrp")(script, X, 0)
    _, script = pair(nn.ReLU())
    with pytest.raises(TrompeError, match="kinks can be smoothed"):
        trompe.smooth(script, beta=2.0)(X)
