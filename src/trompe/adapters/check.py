"""Is the derivative of another library's map right? Finite differences say so, on first use.

The check runs in double precision, on a copy of the model and one image, with every kink of the
model smoothed: the gradient of a ReLU network is piecewise constant, so that without smoothing a
map cut off from the graph would look as right as any other.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor, nn

from trompe.engine import smooth
from trompe.engine.once import additions
from trompe.engine.smoothing import unwrapped
from trompe.engine.walk import modules_of
from trompe.errors import ExplanationError, ModelError, TrompeError

Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]

TOLERANCE = 1e-5
"""Largest relative error of a derivative that counts as right.

Measured on the networks of the tests, the embedded ones and a small ResNet: at most 2e-8 at the
best step where the derivative is right; at least 3e-3 where a part of it is missing (captum's
DeepLift, and zennit's rules with a constant at the output).
"""
STEPS = (1e-5, 1e-6, 1e-7, 1e-4, 1e-8)
"""Of the differences, as a share of the image's size; one that agrees is enough.

A step that crosses a kink or a pole (a relevance divided by an activation near zero) says nothing
about the derivative, and none fits all networks. A wrong derivative agrees with none.
"""
DIRECTIONS = 2


def structure(model: nn.Module, x: Tensor) -> Hashable:
    """What a check holds for: the modules, their settings and shapes, and the shape of an image."""
    inner = unwrapped(model)
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in inner.state_dict().items())
    added = tuple(additions(module) for module in modules_of(inner))
    return type(inner), repr(inner), added, shapes, tuple(x.shape[1:])


def check_derivative(explain: Maps, model: nn.Module, x: Tensor, target: Tensor) -> bool:
    """Compare the derivative of a map with finite differences, in random directions.

    Args:
        explain: the maps of images, with a graph if they require grad.
        model: any module; a copy of it is run.
        x: images [B, C, H, W], of which the first is used.
        target: classes [B].

    Returns:
        Whether it is shown right. ``False`` where the map does not depend on the image at all, as
        the gradient of a linear model: there is nothing to compare then.

    Raises:
        ExplanationError: if the map is random, carries no graph, has a wrong derivative, or if its
            computation fails or writes to the model.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(_devices(x)):
        try:
            twin = copy.deepcopy(unwrapped(model)).double().requires_grad_(False)
        except Exception as error:
            raise ModelError(f"{type(model).__name__} cannot be copied ({error})") from error
        surrogate = smooth(twin, beta=1.0, pooling=1.0)
        draws = torch.Generator().manual_seed(0)
        first = x[:1].detach().double()
        size = float(first.square().mean().sqrt()) or 1.0
        # Next to the image: an image as it is may have ties and zeros, where nothing is smooth.
        point = first + 0.05 * size * _normal(first, draws)

        def maps(at: Tensor) -> Tensor:
            return explain(surrogate, at, target[:1])

        try:
            return _agree(maps, twin, point, size, draws)
        except TrompeError:
            raise
        except Exception as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            reason = textwrap.shorten(first_line, 120, placeholder=" ...")
            raise ExplanationError(f"it fails on this model ({reason})") from error


def _agree(
    maps: Callable[[Tensor], Tensor],
    model: nn.Module,
    point: Tensor,
    size: float,
    draws: torch.Generator,
) -> bool:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = point.clone().requires_grad_(True)
    found = maps(start)
    after = model.state_dict()
    if after.keys() != before.keys() or any(not torch.equal(after[k], before[k]) for k in before):
        raise ExplanationError("it writes to the model's tensors")
    again = maps(point)
    seen = found.detach()
    if float((seen - again).abs().max()) > 1e-9 * float(seen.abs().max()):
        raise ExplanationError(
            "it gives another map at every call, so it is no function of the image (for noise that "
            "stays the same, trompe.explainer('smoothgrad', base=...))"
        )
    shown = False
    for _ in range(DIRECTIONS):
        weights, along = _normal(found, draws), size * _normal(point, draws)
        exact = 0.0
        if found.requires_grad:
            total = (weights * found).sum()
            (slope,) = torch.autograd.grad(total, start, retain_graph=True, materialize_grads=True)
            exact = float((slope * along).sum())
        # Rounding makes a slope of this size even where the map is constant.
        nothing = 1e-9 * float((weights * found).detach().abs().sum())
        error = 1.0
        for slope_found in _slopes(maps, point, weights, along, found.requires_grad):
            larger = max(abs(exact), abs(slope_found))
            error = min(error, 0.0 if larger <= nothing else abs(exact - slope_found) / larger)
            if error <= TOLERANCE:
                shown = shown or larger > nothing
                break
        else:
            raise ExplanationError(_why(found, error))
    return shown


def _slopes(
    maps: Callable[[Tensor], Tensor], point: Tensor, weights: Tensor, along: Tensor, graph: bool
) -> Iterator[float]:
    for step in STEPS if graph else STEPS[:1]:  # that the map moves at all shows what it lacks
        ahead, behind = (maps(point + sign * step * along) for sign in (1, -1))
        yield float((weights * (ahead - behind)).sum()) / (2 * step)


def _why(found: Tensor, error: float) -> str:
    if not found.requires_grad:
        return "its map is cut off from the image (detached, or computed without gradients)"
    return (
        f"the derivative of its map is wrong (relative error {error:.0e} against finite "
        "differences), a part of the map being cut off from the image"
    )


def _normal(like: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=draws, dtype=like.dtype).to(like.device)


def _devices(x: Tensor) -> list[torch.device]:
    return [x.device] if x.device.type == "cuda" else []
