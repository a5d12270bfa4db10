"""The attack step as one would write it with ``torch.autograd`` alone, and with zennit."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from accelerator import now
from problem import BETA, DEFENCE, IG_STEPS, PREFACTORS, SAMPLES, Problem
from torch import Tensor, nn

from trompe.engine.mean import division
from trompe.types import InputSpace, heatmap

Steps = Callable[[int], list[float]]
"""Runs that many steps; the seconds of each."""

RELU_ONLY = ("guided_backprop", "deconvnet")
"""Methods that zennit has on ReLU only; trompe is measured there too."""


@dataclass(frozen=True)
class Contender:
    """One way to attack.

    Args:
        run: makes steps and times them.
        gradient: the gradient of the loss at images [B, C, H, W].
        comparable: whether the map is the same function; SmoothGrad's noise may be another.
    """

    run: Steps
    gradient: Callable[[Tensor], Tensor]
    comparable: bool = True


Context = Callable[[], AbstractContextManager[Any]]


def optimised(
    task: Problem,
    loss: Callable[[Tensor], Tensor],
    *,
    clamp: Callable[[Tensor], Tensor] | None = None,
    around: Context = contextlib.nullcontext,
    second: Context = contextlib.nullcontext,
    comparable: bool = True,
) -> Contender:
    """Adam on a loss.

    Args:
        task: what is to be done.
        loss: of images [B, C, H, W].
        clamp: to valid images.
        around: within which the steps are made.
        second: within which the loss is differentiated.
        comparable: see ``Contender``.
    """
    clamped = clamp or InputSpace().clamp

    def run(count: int) -> list[float]:
        image = task.x.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([image], lr=1e-3)
        times = []
        with around():
            for _ in range(count):
                start = now(image.device)
                optimiser.zero_grad()
                value = loss(image)
                with second():
                    value.backward()
                optimiser.step()
                image.data = clamped(image.data)
                times.append(now(image.device) - start)
        return times

    def gradient(x: Tensor) -> Tensor:
        image = x.clone().requires_grad_(True)
        with around():
            value = loss(image)
            with second():
                value.backward()
        assert image.grad is not None
        return image.grad

    return Contender(run, gradient, comparable)


def paper_loss(task: Problem, heat: Tensor, output: Tensor) -> Tensor:
    """The loss of the paper, from a heat map and the softmax output."""
    on_map, on_output = PREFACTORS
    return on_map * F.mse_loss(heat, task.aim) + on_output * F.mse_loss(output, task.was)


def smoothed(model: nn.Module, beta: float) -> nn.Module:
    """A copy with a softplus module in place of each ReLU module, as peers need it."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus(beta))
    return model


def _gradient(net: nn.Module, x: Tensor, target: Tensor, softmax: bool = False) -> Any:
    """The gradient with a graph, and the logits."""
    logits = net(x)
    scores = logits.softmax(1) if softmax else logits
    score = scores.gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, x, create_graph=True)[0], logits


def _mean(task: Problem, net: nn.Module, points: Tensor, softmax: bool = False) -> Any:
    """The mean gradient over points [n, B, ...], and the logits of the last.

    As many go through the network at once as trompe would take: on a processor all at once would
    be slower.
    """
    total: Any = 0
    for some in points.split(division(task.x, len(points), 64, net, True)[0]):
        flat = some.flatten(0, 1)
        found, logits = _gradient(net, flat, task.target.repeat(len(some)), softmax)
        total = total + found.unflatten(0, (len(some), -1)).sum(0)
    return total / len(points), logits[-len(task.x) :]


def autograd(task: Problem) -> Contender | None:
    """``torch.autograd`` alone, weights frozen; for the gradient's family."""
    method, x = task.method, task.x
    net = smoothed(task.model, DEFENCE if method == "beta_smoothing" else BETA)
    draw = torch.Generator().manual_seed(0)
    shape = (SAMPLES, 1, *x.shape[1:])
    normal = torch.randn(shape, generator=draw, dtype=torch.float64).to(x)
    draw.manual_seed(0)
    uniform = (2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1).to(x)
    times = torch.arange(1, IG_STEPS + 1, dtype=x.dtype, device=x.device) / IG_STEPS

    def noisy(image: Tensor, noise: Tensor) -> Any:
        flat = image.flatten(1)
        spread = (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
        return _mean(task, net, image + 0.1 * spread * noise)[0], net(image)

    def integrated(image: Tensor) -> Any:
        mean, logits = _mean(task, net, times.view(-1, 1, 1, 1, 1) * image, softmax=True)
        return image * mean, logits

    def times_input(image: Tensor) -> Any:
        found, logits = _gradient(net, image, task.target)
        return image * found, logits

    maps: dict[str, Callable[[Tensor], Any]] = {
        "gradient": lambda image: _gradient(net, image, task.target),
        "grad_times_input": times_input,
        "integrated_grad": integrated,
        "smoothgrad": lambda image: noisy(image, normal),
        "uniform_gradient": lambda image: noisy(image, uniform),
        "beta_smoothing": lambda image: (
            _gradient(net, image, task.target)[0],
            task.model(image),
        ),
    }
    if method not in maps:
        return None

    def loss(image: Tensor) -> Tensor:
        relevance, logits = maps[method](image)
        return paper_loss(task, heatmap(relevance), logits.softmax(1))

    return optimised(task, loss)


ZENNIT = (
    *("gradient", "grad_times_input", "integrated_grad", "guided_backprop", "lrp", "smoothgrad"),
    *("deconvnet", "excitation_backprop"),
)
"""The methods that zennit has too."""


def composite_of(method: str) -> Any:
    """Zennit's composite of a method; for ``lrp`` the paper's, without biases."""
    from zennit.composites import (
        DeconvNet,
        ExcitationBackprop,
        GuidedBackprop,
        SpecialFirstLayerMapComposite,
    )
    from zennit.core import Composite
    from zennit.rules import Norm, Pass, ZBox, ZPlus
    from zennit.types import Activation, AvgPool, Convolution, Linear

    simple = {
        "guided_backprop": GuidedBackprop,
        "deconvnet": DeconvNet,
        "excitation_backprop": lambda: ExcitationBackprop(zero_params=["bias"]),
    }
    if method != "lrp":
        return simple.get(method, Composite)()
    space = InputSpace()
    low, high = torch.tensor(min(space.low)), torch.tensor(max(space.high))  # as the paper's code
    return SpecialFirstLayerMapComposite(
        layer_map=[
            (Activation, Pass()),
            (AvgPool, Norm()),
            (Convolution, ZPlus(zero_params="bias")),
            (Linear, ZPlus(zero_params="bias")),
        ],
        first_map=[(Convolution, ZBox(low, high, zero_params="bias"))],
    )


def _start(method: str, seed: Tensor) -> Callable[[Tensor], Tensor]:
    """From what zennit walks back, given the logits; ``seed`` is 1 at the class explained."""

    def through_softmax(logits: Tensor) -> Tensor:
        share = logits.softmax(1)
        return (share * seed).sum(1, keepdim=True) * (seed - share)

    if method == "integrated_grad":
        return through_softmax
    return (lambda logits: seed * logits) if method == "lrp" else (lambda logits: seed)


def zennit(task: Problem) -> Contender | None:
    """Zennit's attributors with ``create_graph``, hooks inactive in the second pass."""
    method = task.method
    if method not in ZENNIT:
        return None
    from zennit.attribution import Gradient, IntegratedGradients, SmoothGrad

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "integrated_grad": (IntegratedGradients, {"n_iter": IG_STEPS}),
        "smoothgrad": (SmoothGrad, {"n_iter": SAMPLES, "noise_level": 0.1}),
    }
    kind, options = kinds.get(method, (Gradient, {}))
    relu = not task.case.surrogate or method in RELU_ONLY
    net = copy.deepcopy(task.model) if relu else smoothed(task.model, BETA)
    net.requires_grad_(False)
    # Where the start requires no grad, zennit's rules drop a part of the derivative.
    seed = F.one_hot(task.target, task.was.shape[1]).to(task.x).requires_grad_(True)
    start, composite = _start(method, seed), composite_of(method)
    attributor = kind(model=net, composite=composite, create_graph=True, **options)

    def loss(image: Tensor) -> Tensor:
        logits, relevance = attributor(image, start)
        heat = heatmap(relevance * image if method == "grad_times_input" else relevance)
        return paper_loss(task, heat, logits.softmax(1))

    return optimised(
        task,
        loss,
        around=lambda: attributor,
        second=composite.inactive,
        comparable=method != "smoothgrad",
    )
