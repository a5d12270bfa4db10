"""One attack step, by trompe and by its peers: the same network, loss, image and optimiser.

A contender is a function that runs a number of steps and returns the seconds of each. A step is the
map, the loss of the paper, its gradient, Adam, and the clamp to valid images. The activations are
softplus with a fixed beta, except for LRP, which the paper attacks on the ReLU network itself, and
zennit's guided backpropagation, which knows ReLU only.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.attacks.presets import Preset
from trompe.types import IMAGENET_MEAN, IMAGENET_STD, InputSpace, heatmap

BETA = 30.0
PREFACTORS = (1e11, 1e6)
FLOORS = {
    "gradient": 4,
    "grad_times_input": 4,
    "guided_backprop": 4,
    "lrp": 6,
}
"""Forward passes that the arithmetic of a step needs at least."""

Steps = Callable[[int], list[float]]
"""Runs that many steps; the seconds of each."""


def smoothed(model: nn.Module) -> nn.Module:
    """A copy with a softplus module in place of each ReLU module, as peers need it."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus(BETA))
    return model


def ours(
    model: nn.Module, x: Tensor, aim: Tensor, method: str, beta: float | None, **options: Any
) -> Steps:
    """Trompe's own loop, timed between its reports."""
    explainer = trompe.explainer(method, **options)
    settings = Preset(beta_start=beta, beta_end=BETA)

    def run(count: int) -> list[float]:
        times: list[float] = []

        def note(done: int, total: int, numbers: dict[str, float]) -> None:
            times.append(time.perf_counter())

        trompe.manipulate(
            model, x, aim, explainer=explainer, preset=settings, iterations=count + 1, progress=note
        )
        return [later - sooner for sooner, later in itertools.pairwise(times)]

    return run


def _optimised(
    x: Tensor,
    step: Callable[[Tensor], Tensor],
    clamp: Callable[[Tensor], Tensor],
    second: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Steps:
    """Adam on a loss, which is differentiated within ``second``."""

    def run(count: int) -> list[float]:
        now = x.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([now], lr=1e-3)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            optimiser.zero_grad()
            loss = step(now)
            with second():
                loss.backward()
            optimiser.step()
            now.data = clamp(now.data)
            times.append(time.perf_counter() - start)
        return times

    return run


def _loss(heat: Tensor, aim: Tensor, output: Tensor, was: Tensor) -> Tensor:
    return PREFACTORS[0] * F.mse_loss(heat, aim) + PREFACTORS[1] * F.mse_loss(output, was)


def autograd(model: nn.Module, x: Tensor, aim: Tensor, method: str) -> Steps | None:
    """``torch.autograd`` alone, weights frozen; for the gradient and its product with the input."""
    if method not in ("gradient", "grad_times_input"):
        return None
    net = smoothed(model).requires_grad_(False)
    was = net(x).softmax(1)
    target = was.argmax(1)

    def step(now: Tensor) -> Tensor:
        logits = net(now)
        score = logits.gather(1, target[:, None]).sum()
        (grad,) = torch.autograd.grad(score, now, create_graph=True)
        heat = heatmap(grad if method == "gradient" else grad * now)
        return _loss(heat, aim, logits.softmax(1), was)

    return _optimised(x, step, InputSpace().clamp)


ZENNIT = ("gradient", "grad_times_input", "guided_backprop", "lrp")
"""The methods that zennit has too."""


def composite_of(method: str) -> Any:
    """Zennit's composite of a method; for ``lrp`` the paper's, without biases."""
    from zennit.composites import GuidedBackprop, SpecialFirstLayerMapComposite
    from zennit.core import Composite
    from zennit.rules import Norm, Pass, ZBox, ZPlus
    from zennit.types import Activation, AvgPool, Convolution, Linear

    if method == "guided_backprop":
        return GuidedBackprop()
    if method != "lrp":
        return Composite()
    space = InputSpace()
    low, high = (torch.tensor(t).view(1, -1, 1, 1) for t in (space.low, space.high))
    return SpecialFirstLayerMapComposite(
        layer_map=[
            (Activation, Pass()),
            (AvgPool, Norm()),
            (Convolution, ZPlus(zero_params="bias")),
            (Linear, ZPlus(zero_params="bias")),
        ],
        first_map=[(Convolution, ZBox(low, high, zero_params="bias"))],
    )


def zennit(model: nn.Module, x: Tensor, aim: Tensor, method: str) -> Steps | None:
    """Zennit's hooks with ``create_graph``, inactive in the second pass as its manual says."""
    if method not in ZENNIT:
        return None
    net = copy.deepcopy(model) if method in ("lrp", "guided_backprop") else smoothed(model)
    net.requires_grad_(False)
    was = net(x).softmax(1)
    target = was.argmax(1)
    seed = F.one_hot(target, was.shape[1]).to(x)

    def run(count: int) -> list[float]:
        composite = composite_of(method)
        with composite.context(net) as modified:

            def step(now: Tensor) -> Tensor:
                logits = modified(now)
                start = seed * logits if method == "lrp" else seed
                (relevance,) = torch.autograd.grad(logits, now, start, create_graph=True)
                heat = heatmap(relevance * now if method == "grad_times_input" else relevance)
                return _loss(heat, aim, logits.softmax(1), was)

            return _optimised(x, step, InputSpace().clamp, composite.inactive)(count)

    return run


def reference(folder: Path, model: nn.Module, x: Tensor, aim: Tensor, method: str) -> Steps | None:
    """The paper's code, one image at a time; it knows networks laid out as VGG."""
    if not hasattr(model, "features") or not hasattr(model, "classifier") or len(x) > 1:
        return None
    if str(folder / "src") not in sys.path:
        sys.path.insert(0, str(folder / "src"))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from nn.enums import ExplainingMethod
            from nn.networks import ExplainableNet
            from nn.utils import clamp, get_expl

            mean, std = (torch.tensor(v).numpy() for v in (IMAGENET_MEAN, IMAGENET_STD))
            net = ExplainableNet(copy.deepcopy(model), data_mean=mean, data_std=std).eval()
            net.change_beta(None if method == "lrp" else BETA)
            kind = getattr(ExplainingMethod, method)
            _, was, target = get_expl(net, x.clone(), kind)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        print(f"reference: {method} not measured: {error}", file=sys.stderr)
        return None
    was = was.detach()

    def step(now: Tensor) -> Tensor:
        heat, output, _ = get_expl(net, now, kind, desired_index=target)
        return _loss(heat, aim, output, was)

    return _optimised(x, step, lambda data: clamp(data, mean, std))


def contenders(model: nn.Module, x: Tensor, method: str, folder: Path | None) -> dict[str, Steps]:
    """All contenders that can run ``method`` on ``model``."""
    options = {"steps": 30} if method == "integrated_grad" else {}
    explainer = trompe.explainer(method, **options)
    with torch.no_grad():
        target = model(x).argmax(1)
    aim = heatmap(explainer(model, x.flip(-1), target)).detach()
    found: dict[str, Steps | None] = {
        "trompe": ours(model, x, aim, method, None if method == "lrp" else BETA, **options),
        "autograd": autograd(model, x, aim, method),
        "zennit": zennit(model, x, aim, method),
    }
    if method == "guided_backprop":  # zennit's runs on ReLU only
        found["trompe, ReLU"] = ours(model, x, aim, method, None)
    if folder is not None:
        found["reference"] = reference(folder, model, x, aim, method)
    return {name: run for name, run in found.items() if run is not None}
