"""The attack on an explanation that can only be asked for: no derivatives, a budget of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trompe.attacks.arguments import (
    checked_classes,
    checked_images,
    checked_logits,
    checked_objective,
)
from trompe.attacks.constraints import Constraint, LInfBall
from trompe.attacks.keep import Keep, as_keep
from trompe.attacks.objectives import Objective
from trompe.attacks.observation import Observation, observe
from trompe.attacks.parts import named, part_of
from trompe.attacks.queries import Queries, QueryAttacker, Spent, query_attackers
from trompe.errors import UsageError
from trompe.explain import given_explainer
from trompe.types import AttackResult, Explainer, InputSpace, Progress, heatmap
from trompe.version import __version__

_EIGHT_LEVELS = LInfBall(8 / 255)


@torch.no_grad()
def query_attack(
    model: nn.Module,
    x: Tensor,
    target_map: Tensor | None = None,
    *,
    explainer: str | Explainer = "gradient",
    objective: str | Objective = "topk",
    constraint: Constraint = _EIGHT_LEVELS,
    queries: int = 1000,
    attacker: str | QueryAttacker = "square",
    keep_output: Keep | str = "class",
    target: Tensor | Sequence[int] | int | None = None,
    input_space: InputSpace | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Change images so that their explanation becomes another one, by asking for maps alone.

    Nothing is differentiated and no surrogate is made, so that the explainer may be any function,
    such as a call of a web service, and the network one of kinks. Each image is searched as if it
    were alone, all at the same time. An interruption (Ctrl-C) ends the search; what it had is
    returned.

    Args:
        model: anything that is called as ``model(x [B, C, H, W]) -> logits [B, K]``. Not changed;
            run in its present mode.
        x: the original images, normalised, [B, C, H, W].
        target_map: the maps aimed at, [B, H, W] or [H, W], for objectives that aim at a map.
        explainer: the method attacked, a name or a function ``(model, x, target) -> map``, [B, C,
            H, W] or [B, H, W].
        objective: what becomes of the map, a name or an object.
        constraint: where the images must stay.
        queries: how many maps may be asked for of each image, beside that of the original.
        attacker: ``square``, ``nes``, ``spsa``, ``genetic``, or an object.
        keep_output: what of the output stays: ``class``, or a ``Keep`` with a tolerance.
        target: the class explained of each image, [B], or one for all; the predicted one if not
            given.
        input_space: the model's normalisation; ImageNet's if not given.
        generator: of the search's random numbers; of seed 0 if not given.
        progress: called after every question.

    Returns:
        What was found; its ``history`` has ``score``, the best so far, after every question.

    Raises:
        UsageError: if a setting is out of range.
        TargetError: if the target map does not fit.
        ModelError: if the model does not behave as a classifier.
        ExplanationError: if an original image has no map.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> result = trompe.attacks.query_attack(net, torch.zeros(1, 3, 2, 2), queries=5)
        >>> result.history["score"].shape
        torch.Size([5, 1])
    """
    if queries < 1:
        raise UsageError(f"queries must be at least 1, not {queries}")
    space, keep = input_space or InputSpace(), as_keep(keep_output)
    x = checked_images(x)
    method = given_explainer(explainer)
    searcher = query_attackers[attacker]() if isinstance(attacker, str) else attacker
    part_of(QueryAttacker, searcher, "attacker")
    part_of(Constraint, constraint, "constraint")
    logits = checked_logits(model, x)
    classes = (
        logits.argmax(1) if target is None else checked_classes(torch.as_tensor(target), logits)
    )

    def seen(images: Tensor) -> Observation:
        return observe(model, method, images.detach(), classes)

    reference = seen(x)
    if not bool(torch.isfinite(reference.map).all()):
        heatmap(reference.relevance)  # raises: which image has no map
    aim = checked_objective(objective, target_map, x, relative=True)
    aim = aim.prepare(reference, lambda images, of: heatmap(method(model, images, of)))

    def look(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        now = seen(images)
        return aim(now, reference), aim.score(now, reference), keep.kept(now, reference)

    def watch(asked: int, score: Tensor) -> None:
        if progress is not None:
            progress(asked, queries, {"score": float(score.mean())})

    first = aim(reference, reference), aim.score(reference, reference)
    asks = Queries(look, queries, x, score=first[1], loss=first[0], watch=watch)
    stopped = "finished"
    try:
        searcher.run(asks, x, constraint, space, generator or torch.Generator().manual_seed(0))
    except Spent:
        pass
    except KeyboardInterrupt:
        stopped = "interrupted"
    final = seen(asks.best)
    curve = torch.stack(asks.curve) if asks.curve else first[1].new_empty(0, len(x))
    return AttackResult(
        x=x.cpu(),
        x_adv=asks.best.cpu(),
        target_class=classes.cpu(),
        map_original=reference.map.cpu(),
        map_target=None if aim.aim is None else aim.aim.cpu(),
        map_adv=final.map.cpu(),
        logits_original=reference.logits.cpu(),
        logits_adv=final.logits.cpu(),
        history={"score": curve.cpu()},
        iterations=asks.asked,
        stopped=stopped,
        input_space=space,
        provenance={
            "method": getattr(method, "name", type(method).__name__),
            "attacker": named(searcher),
            "objective": named(aim),
            "constraint": named(constraint),
            "keep_output": named(keep),
            "queries": queries,
            "asked": asks.asked,
            "vanishing_gradient": [False] * len(x),
            "unmoved": [False] * len(x),
            "device": str(x.device),
            "dtype": str(x.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "trompe": __version__,
        },
    )
