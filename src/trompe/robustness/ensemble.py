"""The worst case of an explanation within a radius: several attacks, no parameters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import L2Ball, LInfBall
from trompe.attacks.batches import out_of_memory
from trompe.attacks.constraints import Ball
from trompe.engine import adapted, frozen
from trompe.errors import ExplanationError, ModelError, UsageError
from trompe.explain import given_explainer
from trompe.explain.base import Method
from trompe.explain.meant import meant
from trompe.given import function, number, of_kind, one_of
from trompe.model_output import Function
from trompe.outputs import Outputs
from trompe.robustness.batch import Ensemble, Plan
from trompe.robustness.expected import DRAWS, Expected
from trompe.robustness.result import RobustnessResult, joined
from trompe.types import Explainer, InputSpace, Progress

log = logging.getLogger("trompe")


def ball_of(norm: str, radius: float) -> Ball:
    """The ball of a norm.

    Raises:
        UsageError: if there is no such norm, or the radius is not positive, or, in the maximum
            norm, larger than any change of a pixel.
    """
    one_of("norm", norm, ("linf", "l2"))
    radius = number("radius", radius)
    if norm == "linf" and radius > 1:
        raise UsageError(
            f"a radius of {radius:g} is larger than any change of a pixel, 0..1: 8 levels of 255 "
            "are 8/255"
        )
    return LInfBall(radius) if norm == "linf" else L2Ball(radius)


@torch.inference_mode(False)
@torch.enable_grad()
def auto_attack(
    model: Any,
    x: Tensor,
    *,
    explainer: str | Explainer = "gradient",
    radius: float = 8 / 255,
    norm: Literal["linf", "l2"] = "linf",
    version: Literal["standard", "rand"] = "standard",
    target: Tensor | Sequence[int] | int | None = None,
    input_space: InputSpace | None = None,
    budget: float = 1.0,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> RobustnessResult:
    """Look for the explanations least like the original ones within a radius.

    An ensemble in the manner of AutoAttack (Croce and Hein 2020) for maps instead of labels. Its
    members make the map uncorrelated, drive its top k out of the top k, aim at three other maps,
    and, without derivatives, change squares of pixels at random. Each begins at a random image of
    the ball, moves by APGD's steps on a network smoothed less and less, is projected after every
    step, and is judged after every step on the ORIGINAL network. The result is the worst of all
    iterates of all members that keep the network's answer, per image and per measure: a member
    that does badly takes nothing away.

    There is nothing to tune. What is found is an upper bound of the worst case's likeness; a lower
    one takes a certificate (``trompe.certify``).

    Args:
        model: see ``trompe.manipulate``; not changed.
        x: the original images, normalised, [B, C, H, W].
        explainer: the method attacked, a name or an object, one's own or another library's too.
        radius: of the ball, pixel units 0..1.
        norm: ``linf``: of the largest change of a pixel; ``l2``: of the Euclidean norm over all.
        version: ``rand`` for models or methods that answer by chance: maps and outputs are means
            over 20 draws, in the gradient and in the verdict.
        target: the class explained of each image, [B], or one for all; the predicted one if not
            given.
        input_space: the model's normalisation; ImageNet's, or a loaded model's own, if not given.
        budget: the share of the members' 100 steps (two take 900) and 5,000 queries, which end
            after 1,000 where they are far behind of every image.
        generator: of all random numbers, drawn for the batch as a whole, so that an image is
            searched otherwise than alone; seeded with 0 if not given.
        progress: called after every step and every query.

    Returns:
        What was found, with what it cost and the reasons to doubt it. An interruption (Ctrl-C)
        ends the search early and keeps what it had.

    Raises:
        UsageError: if a setting is out of range.
        ModelError: if the model is no function of one image.
        ExplanationError: if an original image has no map.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> found = trompe.auto_attack(net, torch.rand(1, 3, 4, 4), budget=0.02)
        >>> found.robust(0.99).tolist()  # the gradient of a linear network is constant
        [True]
    """
    one_of("version", version, ("standard", "rand"))
    if generator is not None:
        of_kind("generator", generator, torch.Generator)
    if input_space is not None:
        of_kind("input_space", input_space, InputSpace)
    function("progress", progress)
    budget = number("budget", budget)
    if not budget > 0:
        raise UsageError(f"the budget must be positive and finite, not {budget}")
    ball = ball_of(norm, radius)
    draw = generator or torch.Generator().manual_seed(0)
    judge, x, outputs, space, classes, fault = _given(model, x, target, input_space, version)
    method = given_explainer(explainer)
    if isinstance(method, Method):
        method = method.within(space)
    method = meant(method, outputs)
    plan = Plan(
        model=judge,
        base=method,
        explainer=Expected(method, generator=draw) if version == "rand" else method,
        space=space,
        ball=ball,
        outputs=outputs,
        budget=budget,
        random=version == "rand",
        gradient_fault=fault,
        generator=draw,
        progress=progress,
    )
    parts: list[RobustnessResult] = []
    waiting = [slice(0, len(x))]
    while waiting:
        part = waiting.pop(0)
        try:
            parts.append(_run(plan, x[part], classes[part], first=part.start))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or part.stop - part.start < 2:
                raise
            middle = (part.start + part.stop) // 2
            log.warning("memory does not suffice: going on with %d images at once", middle)
            waiting = [slice(part.start, middle), slice(middle, part.stop), *waiting]
            continue
        if parts[-1].stopped == "interrupted":
            break
    found = joined(parts)
    provenance = {
        "method": getattr(method, "name", type(method).__name__),
        "version": version,
        "budget": budget,
        "torch": torch.__version__,
        "trompe": trompe.__version__,
    }
    return RobustnessResult(**{**vars(found), "provenance": provenance, "norm": norm})


def _given(
    model: Any, x: Any, target: Any, space: InputSpace | None, version: str
) -> tuple[nn.Module, Tensor, Outputs, InputSpace, Tensor, str]:
    """The frozen model, images, meaning of the outputs, space, classes, fault of the gradient."""
    chance = version == "rand"
    known = adapted(model, x, evaluation=chance, by_chance=chance)
    if known.x.dim() in (3, 5):
        raise UsageError(
            f"auto_attack is for images [B, C, H, W], not for {tuple(known.x.shape)}: attack "
            "signals and volumes by manipulate(objective='unlike', input_space=...)"
        )
    judge, images = frozen(known.model), known.x.detach().clone()
    if isinstance(judge, torch.jit.ScriptModule):  # which takes no hooks, to count its passes
        judge = Function(judge)
    return (
        judge,
        images,
        known.outputs,
        space or known.space or InputSpace(),
        known.target(
            _by_mean(known.outputs, judge, images) if chance and target is None else target
        ),
        known.gradient_fault,
    )


def _by_mean(outputs: Outputs, model: nn.Module, x: Tensor) -> Tensor:
    """What a model that answers by chance answers on average, [B].

    Raises:
        ModelError: if that is not finite.
    """
    with torch.no_grad():
        logits = torch.stack([model(x.clone()) for _ in range(DRAWS)]).mean(dim=0)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the model returns logits that are not finite on the original images")
    return outputs.explained(logits)


def _run(plan: Plan, x: Tensor, target: Tensor, first: int) -> RobustnessResult:
    try:
        return Ensemble(plan, x, target).run()
    except ExplanationError as error:
        if first:
            raise ExplanationError(f"{error} (counted from image {first})") from error
        raise
