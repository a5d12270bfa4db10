"""Adapted explanations next to trompe's own, for the tests of both adapters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import nets
import torch
from attacking import manipulate
from torch import Tensor, nn

import trompe

X = trompe.InputSpace().clamp(0.6 * nets.images())  # within the bounds of the input space
TARGET = torch.tensor([2, 1])


def slope(method: trompe.Explainer, model: nn.Module, x: Tensor) -> Tensor:
    """The derivative of a functional that depends on all of the map, by autograd."""
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(functional(method(model, x, TARGET)), x)
    return found


def functional(relevance: Tensor) -> Tensor:
    """The squared distance of the heat maps from given ones, as an attack has it."""
    draws = torch.Generator().manual_seed(11)
    heat = trompe.heatmap(relevance)
    aim = torch.rand(heat.shape, generator=draws, dtype=torch.float64)
    return (heat - aim / aim.flatten(1).sum(dim=1).view(-1, 1, 1)).square().sum()


def difference(method: trompe.Explainer, model: nn.Module, x: Tensor, along: Tensor) -> float:
    """The same derivative in one direction, by finite differences of fourth order."""

    def at(step: float) -> float:
        return float(functional(method(model, x + step * along, TARGET)))

    h = 1e-5
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def direction(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)


def snapshot(model: nn.Module) -> Callable[[], None]:
    """Remember all of a model; the function returned asserts that it is as it was."""
    state = copy.deepcopy(model.state_dict())
    tensors = [*model.parameters(), *model.buffers()]
    versions = [tensor._version for tensor in tensors]
    wanted = [tensor.requires_grad for tensor in tensors]
    attributes = [dict(module.__dict__) for module in model.modules()]
    inner = [{k: copy.copy(v) for k, v in a.items() if isinstance(v, dict)} for a in attributes]

    def unchanged() -> None:
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        now = [*model.parameters(), *model.buffers()]
        assert all(a is b for a, b in zip(now, tensors, strict=True))
        assert [tensor._version for tensor in now] == versions
        assert [tensor.requires_grad for tensor in now] == wanted
        assert all(tensor.grad is None for tensor in now)
        for module, before, dicts in zip(model.modules(), attributes, inner, strict=True):
            assert module.__dict__.keys() == before.keys()
            assert all(module.__dict__[k] is v for k, v in before.items())
            assert all(module.__dict__[k] == v for k, v in dicts.items())  # hooks, by their ids

    return unchanged


def with_user_hook(model: nn.Sequential) -> list[Any]:
    """A hook of the user's own, and the list that it fills."""
    fired: list[Any] = []
    model[0].register_forward_hook(lambda *_: fired.append(1))
    return fired


def attacked(method: trompe.Explainer, model: nn.Module, **options: Any) -> tuple[float, float]:
    """The similarity of the heat map to its target, before and after a short attack."""
    x = X[:1].float()
    other = X[1:].float()
    aim = trompe.heatmap(trompe.explainer("gradient")(model, other, model(other).argmax(1)))
    result = manipulate(
        model,
        x,
        aim,
        explainer=method,
        iterations=50,
        learning_rate=1e-2,
        prefactors=(1e3, 1.0),
        **options,
    )
    assert bool(result.class_kept.all())
    assert not any(result.provenance["vanishing_gradient"])
    before, after = (
        float(trompe.metrics.pcc(heat, result.map_target))
        for heat in (result.map_original, result.map_adv)
    )
    return before, after
