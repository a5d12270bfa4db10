"""A manipulation of a random explanation, judged by random numbers that it has never used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain import given_explainer
from trompe.explain.base import Method
from trompe.metrics import pcc
from trompe.types import AttackResult, heatmap

SEED = 500_000_003
"""Of the first fresh draw: beyond all that an attack draws by."""


@dataclass(frozen=True)
class FreshDraws:
    """Correlations of heat maps of fresh draws, each the mean over the draws, [B].

    Args:
        original: of the manipulated image's map with the original image's of another draw.
        floor: of the original image's map with its own of another draw: what chance alone does.
            A manipulation has moved the explanation where ``original`` lies below it.
        aim: of the manipulated image's map with the map aimed at; ``None`` where there was none.
        aim_before: of the original image's map with the map aimed at.
        draws: how many there were.
    """

    original: Tensor
    floor: Tensor
    aim: Tensor | None
    aim_before: Tensor | None
    draws: int


@torch.no_grad()
def fresh_draws(
    model: nn.Module,
    result: AttackResult,
    explainer: str | Method,
    *,
    draws: int = 5,
    seed: int = SEED,
) -> FreshDraws:
    """Explain a result again with masks or noise that the attack has never used.

    An attack on one draw may fit that draw alone, and two honest draws of one image differ, too:
    both stand here side by side. To judge by another sampler, give another method or other options
    (``kernel_shap`` after an attack on ``lime``, ``rise`` of other cells).

    Args:
        model: the one attacked; not changed.
        result: what an attack found.
        explainer: the method, a name or an object.
        draws: how many, at least 2.
        seed: of the first; far from those of an attack that draws anew in every step.

    Returns:
        Correlations per image; for a method that draws nothing ``floor`` is 1.

    Raises:
        UsageError: if there are too few draws.
        ExplanationError: if an image has no map under one of them.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> found = trompe.attacks.query_attack(net, torch.ones(1, 3, 2, 2), explainer="rise",
        ...                                     queries=3)
        >>> fresh_draws(net, found, "rise").floor.shape
        torch.Size([1])
    """
    if draws < 2:
        raise UsageError(f"draws must be at least 2, not {draws}: they are compared by pairs")
    method = given_explainer(explainer)
    judge = frozen(model)
    before: list[Tensor] = []
    after: list[Tensor] = []
    for index in range(draws):
        drawn = method.redrawn(seed + index)
        for x, maps in ((result.x, before), (result.x_adv, after)):
            maps.append(heatmap(drawn(judge, x, result.target_class)))
    others = [*before[1:], before[0]]
    aim = result.map_target

    def mean(maps: list[Tensor], with_maps: list[Tensor]) -> Tensor:
        pairs = zip(maps, with_maps, strict=True)
        return torch.stack([pcc(one, other) for one, other in pairs]).mean(dim=0)

    return FreshDraws(
        original=mean(after, others),
        floor=mean(before, others),
        aim=None if aim is None else mean(after, [aim] * draws),
        aim_before=None if aim is None else mean(before, [aim] * draws),
        draws=draws,
    )
