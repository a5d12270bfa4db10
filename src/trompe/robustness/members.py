"""Who takes part in the ensemble: aims, steps, and where each begins."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.attacks import Apgd, LInfBall, Objective, ReachMap, Signed, Step, TopkMargin, Unlike
from trompe.attacks.constraints import Ball
from trompe.attacks.observation import Observation
from trompe.attacks.steps import ScaledAdam
from trompe.robustness.targets import inverted, moved_away, others
from trompe.types import Explainer

STEPS, QUERIES = 100, 5000
"""Of each member that takes derivatives, and of the one that takes none (AutoAttack's numbers)."""

PATIENCE = 9
"""Times as many steps are taken by the members that gain from more."""


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble.

    Args:
        name: what it is called in a result.
        objective: what it makes of the maps.
        step: how it moves.
        patience: how many times the others' steps it takes.
        betas: of the surrogate in the first step and in the last, in spreads.
    """

    name: str
    objective: Objective
    step: Step
    patience: int = 1
    betas: tuple[float, float] = (5.0, 300.0)


def members(
    model: nn.Module, explainer: Explainer, reference: Observation, ball: Ball
) -> list[Member]:
    """The members that take derivatives, for the images of ``reference``.

    ``unlike`` looks for the worst correlation, three times: by APGD's steps, and twice by steps of
    gathered signs that fall as a cosine, nine times as many: what they find still improves with
    their number, where the other members' does not. The second of these looks through a sharper
    surrogate: it finds worse maps of hardened networks, the first of others (see
    ``docs/decisions.md``).
    ``topk_margin`` looks for the least common top k. Three go towards maps: that of another image,
    the original one moved to the far corner, and its inverse.
    """
    radius = ball.radius
    linf = isinstance(ball, LInfBall)
    apgd = Apgd(radius, norm="linf" if linf else "l2")
    falling: Step = Signed(radius / 4)
    farther: Step = Signed(radius / 2, momentum=0.85)
    if not linf:  # what a pixel may change by if all do alike
        pixels = reference.x[0].numel() ** 0.5
        falling, farther = ScaledAdam(radius / pixels), ScaledAdam(2 * radius / pixels)
    found = [
        Member("unlike", Unlike(), apgd),
        Member("unlike, again", Unlike(), falling, patience=PATIENCE),
        Member("unlike, sharper", Unlike(), farther, patience=PATIENCE, betas=(10.0, 1000.0)),
        Member("topk_margin", TopkMargin(), apgd),
    ]
    if reference.map[0].numel() < 2 * max(1, reference.map[0].numel() // 10):
        found.pop()  # a map of one pixel has no other
    targets: dict[str, Tensor] = {
        "to another map": others(model, explainer, reference),
        "to the far corner": moved_away(reference.map),
        "to the inverse": inverted(reference.map),
    }
    for name, target in targets.items():
        found.append(Member(name, ReachMap(target.detach(), relative=True), apgd))
    return found
