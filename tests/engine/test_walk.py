"""Looking through a model quickly finds what PyTorch finds."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import nn

from trompe import explainer, smooth
from trompe.engine.once import structure
from trompe.engine.walk import modules_of, trainable
from trompe.errors import ModelError


def shared() -> nn.Module:
    """A module in two places, a missing one, and a circle."""
    net = nets.plain()
    net.add_module("again", net[1])
    net.register_module("none", None)
    net[0].add_module("up", net)
    return net


def scripted() -> nn.Module:
    traced: nn.Module = torch.jit.trace(nets.plain(), torch.zeros(1, 3, nets.SIZE, nets.SIZE))
    return traced


@pytest.mark.parametrize("make", [nets.plain, nets.Forms, shared, scripted])
def test_the_modules_are_those_that_pytorch_names(make: type[nn.Module]) -> None:
    net = make()
    found = modules_of(net)
    assert [id(module) for module in found] == [id(module) for module in net.modules()]


@pytest.mark.parametrize("make", [nets.plain, nets.Forms, scripted])
def test_a_parameter_that_requires_grad_is_found(make: type[nn.Module]) -> None:
    net = make().requires_grad_(False)
    assert not trainable(modules_of(net))
    next(reversed(list(net.parameters()))).requires_grad_(True)
    assert trainable(modules_of(net))


def test_an_exchanged_or_training_module_is_another_structure() -> None:
    net = nets.plain()
    known = structure(net)
    net[1].train()
    assert structure(net) != known
    net[1].eval()
    assert structure(net) == known
    net[1] = nn.ELU()
    assert structure(net) != known


def test_what_a_model_becomes_after_its_first_map_is_noticed() -> None:
    net = nets.plain()
    x = torch.rand(1, 3, nets.SIZE, nets.SIZE)
    explainer("lrp")(net, x, 0)
    net[4] = nn.Dropout(0.5).train()
    with pytest.raises(ModelError, match="Dropout"):
        explainer("lrp")(net, x, 0)


def test_the_first_batch_norm_in_training_mode_is_named() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    x = torch.rand(2, 3, 2, 2)
    with pytest.raises(ModelError, match="batch norm '0'"):
        explainer("gradient").explain(net, x, torch.zeros(2, dtype=torch.long))


def test_gradients_are_taken_whatever_the_mode() -> None:
    net = smooth(nets.plain(), beta=2.0)
    x, target = torch.rand(1, 3, nets.SIZE, nets.SIZE), torch.tensor([1])
    expected = explainer("gradient")(net, x, target)
    with torch.no_grad():
        assert torch.equal(explainer("gradient")(net, x, target), expected)
    with torch.inference_mode():
        assert torch.equal(explainer("gradient")(net, x, target), expected)
