"""Questions to a model and its explanations, counted, and the shape of what asks them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from trompe.attacks.constraints import Constraint
from trompe.per_image import per_image
from trompe.registry import Registry
from trompe.types import InputSpace


class Spent(Exception):  # a signal, no error: the attack ends with what it has
    """The budget does not suffice for another question."""


class Answer(NamedTuple):
    """What an attacker learns of images.

    Args:
        loss: the objective, [B] or [N, B], lower is better; not a number where there is no map.
        cost: the loss, infinite where the output is not kept or there is no map.
    """

    loss: Tensor
    cost: Tensor


Look = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""``look(x [B, C, H, W]) -> loss [B], score [B], kept [B]`` of one image per original."""


@dataclass
class Queries:
    """Asks for maps, counts the questions, and keeps the best answer of each image.

    One question is one map of each of the B images.

    Args:
        look: what answers.
        budget: how many questions may be asked of each image.
        x: the original images, which count as the best where none is better, [B, C, H, W].
        score: theirs, [B].
        loss: theirs, [B].
        watch: called after every question with the number asked and the best scores [B].
    """

    look: Look
    budget: int
    x: Tensor
    score: Tensor
    loss: Tensor
    watch: Callable[[int, Tensor], None] | None = None
    asked: int = 0
    curve: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = self.x.clone()
        self.best_score = self.score.clone()

    @property
    def left(self) -> int:
        """How many questions are left."""
        return self.budget - self.asked

    def ask(self, x: Tensor, *, allowed: bool = True) -> Answer:
        """The loss of images [B, C, H, W], or of N copies of the batch [N, B, C, H, W].

        Args:
            x: the images.
            allowed: whether they satisfy the constraint and may be taken as the best.

        Raises:
            Spent: if so many questions are not left; none is asked then.
        """
        many = x if x.dim() > self.x.dim() else x.unsqueeze(0)
        if len(many) > self.left:
            raise Spent
        rows = [self._one(image, allowed) for image in many]
        losses, costs = (torch.stack([row[i] for row in rows]) for i in range(2))
        return Answer(losses, costs) if many is x else Answer(losses[0], costs[0])

    def _one(self, x: Tensor, allowed: bool) -> tuple[Tensor, Tensor]:
        loss, score, kept = self.look(x)
        self.asked += 1
        good = kept & torch.isfinite(loss) & torch.isfinite(score)
        if allowed:
            better = good & (score < self.best_score)
            images = per_image(better, x)
            self.best = torch.where(images, x, self.best)
            self.best_score = torch.where(better, score, self.best_score)
        self.curve.append(self.best_score.clone())
        if self.watch is not None:
            self.watch(self.asked, self.best_score)
        return loss, torch.where(good, loss, torch.inf)


@dataclass(frozen=True)
class QueryAttacker(ABC):
    """A search without derivatives: a frozen dataclass whose fields are its options."""

    @abstractmethod
    def run(
        self,
        queries: Queries,
        origin: Tensor,
        constraint: Constraint,
        space: InputSpace,
        generator: torch.Generator,
    ) -> None:
        """Ask until the budget is spent (``Spent`` may end it); the best answer is what counts.

        Args:
            queries: answers, counts, and keeps the best.
            origin: the original images, [B, C, H, W], normalised.
            constraint: where images must stay that are to count.
            space: the model's normalisation.
            generator: of the random numbers, on the CPU.
        """


query_attackers: Registry[type[QueryAttacker]] = Registry(
    "query attacker", "trompe.attacks.queries"
)
"""All attackers without derivatives, by name."""


def reach(constraint: Constraint, origin: Tensor, space: InputSpace, pattern: Tensor) -> Tensor:
    """By how much a pattern of changes may be multiplied, pixel units, [B].

    For a ball, what brings the pattern to its surface; else the constraint's radius, or 1.

    Args:
        constraint: where images must stay.
        origin: the original images, [B, C, H, W].
        space: the model's normalisation.
        pattern: changes of size 1 at most, pixel units, not zero, [B, C, H, W].
    """
    from trompe.attacks.constraints import Ball

    radius = float(getattr(constraint, "radius", 1.0))
    if not isinstance(constraint, Ball):
        return torch.full_like(origin[:, 0, 0, 0], radius)
    size = constraint.size(origin + space.scale(1.0, origin) * pattern, origin, space)
    return radius / size
