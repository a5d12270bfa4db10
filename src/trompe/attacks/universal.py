"""One change that, added to any image, changes its explanation (after Moosavi-Dezfooli 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trompe.attacks.arguments import checked_images
from trompe.attacks.constraints import Ball, LInfBall
from trompe.attacks.keep import Keep, as_keep
from trompe.attacks.manipulation import unseen
from trompe.attacks.objectives import Objective
from trompe.attacks.steps import Step
from trompe.attacks.universal_result import Universal
from trompe.attacks.universal_search import Search
from trompe.engine import adapted, frozen
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.explain.base import Method
from trompe.explain.meant import meant
from trompe.progress import shown
from trompe.types import Explainer, InputSpace, Progress


@torch.inference_mode(False)
@torch.enable_grad()
def manipulate_all(
    model: Any,
    batches: Sequence[Tensor],
    target_map: Tensor | None = None,
    *,
    held_out: Sequence[Tensor] | None = None,
    explainer: str | Explainer = "gradient",
    objective: str | Objective = "unlike",
    constraint: Ball | None = None,
    keep_output: Keep | str = "class",
    epochs: int = 20,
    step: Step | None = None,
    input_space: InputSpace | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | bool | None = None,
) -> Universal:
    """Look for one change that, added to every image, changes its explanation.

    One step per batch goes along the mean of the images' gradients, each brought to length 1, and
    the change is brought back into the ball. After each round over the batches it is judged on the
    original model by all images that it is made from; the best is kept. The numbers that count are
    those of images held out.

    Args:
        model: see ``trompe.manipulate``; not changed.
        batches: normalised images, [B, C, H, W] each, all of one size.
        target_map: the map aimed at, [H, W], for objectives that aim at one.
        held_out: further batches to judge by; if not given, the last quarter of the batches (at
            least one) is kept aside.
        explainer: the method attacked, a name or an object.
        objective: what becomes of the maps, a name or an object.
        constraint: a ball in which the change stays; ``LInfBall(8 / 255)`` if not given.
        keep_output: what of the output stays; see ``trompe.manipulate``.
        epochs: rounds over the batches.
        step: how the change moves; steps of gathered signs, or Adam in other balls, if not given.
        input_space: the model's normalisation; ImageNet's, or a loaded model's own, if not given.
        generator: of the start and of the random signs; seeded with 0 if not given.
        progress: called after every step; ``True`` for a bar.

    Returns:
        What was found. An interruption (Ctrl-C) ends the search early and keeps what it had.

    Raises:
        UsageError: if there are too few batches or they differ in size, or a setting is out of
            range.
        ModelError: if the model is no function of one image.
        ExplanationError: if an image has no map.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> found = trompe.manipulate_all(net, [torch.rand(2, 3, 4, 4)] * 2, epochs=1)
        >>> round(found.held_out.mean(), 3)  # the gradient of a linear network is constant
        1.0
    """
    if epochs < 1:
        raise UsageError(f"epochs must be at least 1, not {epochs}")
    made_from, others = _split(batches, held_out)
    ball = LInfBall(8 / 255) if constraint is None else constraint
    if not isinstance(ball, Ball):
        raise UsageError("the constraint of one change for all images must be a ball: linf, l2, l1")
    given = adapted(model, made_from[0], evaluation=True)
    space = input_space or given.space or InputSpace()
    method = as_explainer(explainer, space)
    if isinstance(method, Method):
        method = method.within(space)
    method = meant(method, given.outputs)
    judge = frozen(given.model)
    keep = dataclasses.replace(as_keep(keep_output), outputs=given.outputs)
    draw = generator or torch.Generator().manual_seed(0)
    search = Search(judge, method, space, ball, given.outputs, objective, target_map, keep)
    sets = [search.look(x) for x in made_from]
    change, steps, stopped = search.run(sets, epochs, step, draw, shown(progress, "universal"))
    aside = [search.look(x) for x in others]
    signs = torch.randint(0, 2, change.shape, generator=draw).to(change) * 2 - 1
    return Universal(
        change=change.cpu(),
        seen=search.judged(sets, change),
        held_out=search.judged(aside, change),
        noise=search.judged(aside, change.abs() * signs),
        steps=steps,
        stopped=stopped,
        input_space=space,
        remaining_kinks=tuple(unseen(given, made_from[0])),
    )


def _split(
    batches: Sequence[Tensor], held_out: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The batches to make the change from, and those to judge it by."""
    own = [checked_images(torch.as_tensor(x)) for x in batches]
    if held_out is not None:
        others = [checked_images(torch.as_tensor(x)) for x in held_out]
    else:
        aside = max(1, len(own) // 4)
        own, others = own[:-aside], own[-aside:]
    if not own or not others:
        raise UsageError("give at least two batches: one is kept aside to judge the change by")
    if len({x.shape[1:] for x in (*own, *others)}) > 1:
        raise UsageError("one change fits images of one size only: give batches of equal size")
    return own, others
