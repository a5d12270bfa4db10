"""One attack step, by trompe and by its peers: the same network, loss, image and optimiser.

A step is the map, the loss of the paper, its gradient, Adam, and the clamp to valid images.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import torch
from accelerator import now
from peers import Contender
from problem import PREFACTORS, Problem
from reference_peer import reference
from torch import Tensor

from trompe.attacks import Adam, Keep, ReachMap, ValidImage
from trompe.attacks.loop import Attack
from trompe.attacks.loss import Loss
from trompe.attacks.observation import observe
from trompe.attacks.presets import Preset
from trompe.attacks.surrogate import surrogate_of
from trompe.types import InputSpace


def ours(
    task: Problem,
    beta: float | None,
    options: dict[str, Any] | None = None,
    capture: str = "graph",
) -> Contender:
    """Trompe's own loop, timed between its reports.

    The step is recorded once, before the times count, and replayed, which is what a long attack
    comes to by default. Judging every tenth iterate on the original network is not within what is
    timed.
    """
    device, explainer = task.x.device, task.explainer(options)
    settings = Preset(beta_start=beta)
    surrogate = surrogate_of(settings, task.model, task.x, method=explainer)
    space = InputSpace()
    loss = Loss(ReachMap(task.aim), Keep(), space, prefactors=PREFACTORS)
    with torch.no_grad():
        origin = observe(task.model, explainer, task.x, task.target)

    def run(count: int) -> list[float]:
        times: list[float] = []
        Attack(
            model=task.model,
            surrogate=surrogate,
            explainer=explainer,
            loss=loss,
            constraint=ValidImage(),
            stepper=Adam(1e-3).begin(task.x, space),
            beta=lambda iteration: beta,
            reference=origin,
            target=task.target,
            judge_every=count + 2,
            ask_every=1 if device.type == "cpu" else 10,
            capture=capture,
            progress=lambda *_: times.append(now(device)),
        ).run(task.x, count + 1)
        return [later - sooner for sooner, later in itertools.pairwise(times)]

    def gradient(x: Tensor) -> Tensor:
        image = x.clone().requires_grad_(True)
        model = task.model if surrogate is None else surrogate
        total = loss(observe(model, explainer, image, task.target), origin)
        return torch.autograd.grad(total.sum(), image)[0]

    return Contender(run, gradient)


def contenders(task: Problem, folder: Path | None) -> dict[str, Contender]:
    """All contenders that can run the method on the model.

    Args:
        task: what is to be done.
        folder: a clone of the reference implementation.
    """
    found: dict[str, Contender | None] = {
        "trompe": ours(task, task.beta),
        "autograd": peers.autograd(task),
        "zennit": peers.zennit(task),
    }
    for name, options in task.case.variants.items():
        found[name] = ours(task, task.beta, options)
    if task.method in peers.RELU_ONLY:
        found["trompe, ReLU"] = ours(task, None)
    if folder is not None:
        found["reference"] = reference(folder, task)
    return {name: contender for name, contender in found.items() if contender is not None}


def disagreement(task: Problem, folder: Path | None) -> dict[str, float]:
    """How far each contender's gradient of the loss is from trompe's, as a share of its norm.

    Taken near the images rather than at them, where the output has not moved. A contender that runs
    on ReLU is compared with trompe on ReLU; one whose noise is its own is left out.
    """
    found = contenders(task, folder)
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(task.x.shape, generator=draw, dtype=torch.float64).to(task.x)
    x = InputSpace().clamp(task.x + 0.01 * noise)
    expected = found["trompe"].gradient(x)
    errors = {}
    for name, contender in found.items():
        if name.startswith("trompe, ReLU") or name == "trompe" or not contender.comparable:
            continue
        other = expected
        if name == "zennit" and task.method in peers.RELU_ONLY:
            other = found["trompe, ReLU"].gradient(x)
        errors[name] = float((contender.gradient(x) - other).norm() / other.norm())
    return errors


def in_double(task: Problem) -> Problem:
    """The same problem in double precision, to compare contenders; its model is changed."""
    return replace(
        task,
        model=task.model.double(),
        x=task.x.double(),
        aim=task.aim.double(),
        was=task.was.double(),
        patterns={name: pattern.double() for name, pattern in task.patterns.items()},
    )
