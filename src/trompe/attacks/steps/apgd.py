"""APGD's steps: halved where they lead nowhere, restarted from the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trompe.attacks.constraints import Ball, L2Ball, LInfBall
from trompe.attacks.steps.base import Step, check_share, check_size, scaled, steps
from trompe.errors import UsageError
from trompe.per_image import per_image
from trompe.types import InputSpace

_ROUNDING = 1e-9  # 0.7 * 100 is a little more than 70


def checkpoints(iterations: int) -> list[int]:
    """The steps after which the size is reconsidered (Croce and Hein 2020, section 3.2).

    ``w_j = ceil(p_j N)``, ``p_1 = 0.22``, ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``.
    """
    before, now = 0.0, 0.22
    found = []
    while now < 1:
        found.append(math.ceil(now * iterations - _ROUNDING))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return found


@steps.register("apgd")
@dataclass(frozen=True)
class Apgd(Step):
    """Auto-PGD (Croce and Hein 2020), within a ball around the first image.

    ``z = P(x_t - eta d)``, ``x_{t+1} = P(x_t + a (z - x_t) + (1 - a) (x_t - x_{t-1}))`` with the
    sign of the gradient, or its unit vector, as d. At each checkpoint an image's step is halved,
    and it goes back to its best iterate, if fewer than ``improving`` of the steps since the last
    one improved it, or if neither its step nor its best has changed since. Here d is taken of
    gathered gradients, each divided by its mean magnitude: those of a map jump more than those of
    a loss of the output.

    Args:
        radius: of the ball, pixel units 0..1, positive.
        norm: of the ball, ``linf`` or ``l2``.
        size: of the first step, in shares of the radius, positive (2 in the original).
        momentum: the share a of the new direction, 0..1.
        gathering: share of the gathered gradients kept per step, 0..1; 0 is the original.
        improving: least share of the steps that must improve, 0..1 (the original's rho).

    Raises:
        UsageError: if one of them is out of range.
    """

    radius: float
    norm: Literal["linf", "l2"] = "linf"
    size: float = 0.25
    momentum: float = 0.75
    gathering: float = 0.9
    improving: float = 0.75

    def __post_init__(self) -> None:
        check_size("radius", self.radius)
        check_size("size", self.size)
        for name in ("momentum", "gathering", "improving"):
            check_share(name, getattr(self, name))
        if self.norm not in ("linf", "l2"):
            raise UsageError(f"unknown norm '{self.norm}': choose from linf, l2")

    @property
    def ball(self) -> Ball:
        """The ball in which the steps stay."""
        return LInfBall(self.radius) if self.norm == "linf" else L2Ball(self.radius)

    def begin(self, x: Tensor, space: InputSpace) -> ApgdStepper:
        """See ``Step``."""
        return ApgdStepper(self, x.detach().clone(), space)


class ApgdStepper:
    """``Apgd`` in use on images around ``origin`` [B, C, H, W]."""

    def __init__(self, step: Apgd, origin: Tensor, space: InputSpace) -> None:
        self.options, self.origin, self.space = step, origin, space
        count = len(origin)
        self.size = origin.new_full((count,), step.size * step.radius)
        self._best = origin.new_full((count,), math.inf)
        self._best_x = origin.clone()
        self._best_grad = torch.zeros_like(origin)
        self._better = torch.zeros(count, dtype=torch.bool, device=origin.device)
        self._last = self._best.clone()  # of the scores
        self._before = self._best.clone()  # the best at the last checkpoint
        self._improved = torch.zeros_like(self._best)
        self._halved = torch.ones(count, dtype=torch.bool, device=origin.device)
        self._checked = 0
        self._previous: Tensor | None = None
        self._gathered = torch.zeros_like(origin)

    def heed(self, x: Tensor, score: Tensor) -> None:
        """Learn how good ``x`` is before the step from it: its score [B], lower is better."""
        score = score.detach().to(self._best.dtype)
        self._improved += score < self._last
        self._last = score
        self._better = score < self._best
        self._best = torch.where(self._better, score, self._best)
        self._best_x = torch.where(per_image(self._better, self.origin), x.detach(), self._best_x)

    def _reconsider(self, x: Tensor, grad: Tensor, iteration: int) -> Tensor:
        """Halve steps, go back to the best; returns the gradients where the images now are."""
        stalled = self._improved < self.options.improving * (iteration - self._checked)
        stalled |= ~self._halved & (self._best >= self._before)
        stalled &= torch.isfinite(self._best)  # of those never judged nothing is known
        self.size = torch.where(stalled, self.size / 2, self.size)
        x.copy_(torch.where(per_image(stalled, self.origin), self._best_x, x))
        if self._previous is not None:
            self._previous = torch.where(
                per_image(stalled, self.origin), self._best_x, self._previous
            )
        self._halved, self._before, self._checked = stalled, self._best.clone(), iteration
        self._improved.zero_()
        return torch.where(per_image(stalled, self.origin), self._best_grad, grad)

    def step(self, x: Tensor, grad: Tensor, iteration: int, iterations: int) -> None:
        """See ``Stepper``."""
        options, ball = self.options, self.options.ball
        self._best_grad = torch.where(per_image(self._better, self.origin), grad, self._best_grad)
        if iteration in checkpoints(iterations):
            grad = self._reconsider(x, grad, iteration)
        here = x.detach().clone()
        previous = here if self._previous is None else self._previous
        self._gathered.mul_(options.gathering).add_(scaled(grad))
        if options.norm == "linf":
            direction = self._gathered.sign()
        else:  # in pixel units, in which the ball is round
            pixels = self._gathered * self.space.scale(1.0, x)
            length = pixels.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
            direction = pixels / per_image(length, self.origin)
        move = per_image(self.size, self.origin) * self.space.scale(1.0, x) * direction
        ahead = ball.project(here - move, self.origin, self.space)
        share = options.momentum if iteration else 1.0
        moved = here + share * (ahead - here) + (1 - share) * (here - previous)
        x.copy_(ball.project(moved, self.origin, self.space))
        self._previous = here
