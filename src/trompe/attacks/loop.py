"""The optimisation: look, compare, step, project; keep the best; end well whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attacks.captured_step import Steps
from trompe.attacks.constraints import Constraint
from trompe.attacks.objectives import ReachMap
from trompe.attacks.observation import Observation, observe
from trompe.attacks.optimisers import Stepper
from trompe.attacks.step import Look
from trompe.engine.smoothing import Smoothed
from trompe.metrics import pcc
from trompe.types import Explainer, Progress

log = logging.getLogger("trompe")

NOTED = ("loss", "map_mse", "map_pcc", "output_mse", "image_mse", "beta")
"""What is noted of every image in every step."""


class Means(Mapping[str, float]):
    """Means over a batch, NaN left out.

    Each is taken when it is looked at: reading a number waits for a GPU to finish, and a bar that
    is drawn five times a second looks at few.

    Args:
        values: per name the numbers of the images, [B].
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> float:
        return float(self._values[name].nanmean())

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass
class Best:
    """The best iterate of each image so far, judged on the original model.

    Args:
        x: the iterates, [B, C, H, W].
        loss: their objective on the original model, [B].
        target: the class that must be kept, [B].
    """

    x: Tensor
    loss: Tensor
    target: Tensor

    def offer(self, now: Observation, loss: Tensor) -> None:
        """Take over the images that keep their class and have a lower loss."""
        better = (now.logits.argmax(dim=1) == self.target) & (loss < self.loss)
        images = better.view(-1, *[1] * (self.x.dim() - 1))
        self.x = torch.where(images, now.x.detach(), self.x)
        self.loss = torch.where(better, loss.detach(), self.loss)


@dataclass
class Attack:
    """One batch under attack; ``run`` does the work and can be interrupted.

    Args:
        model: the original model, by which everything is judged.
        surrogate: the smoothed model that is differentiated, or ``None`` for the model itself.
        explainer: the method attacked.
        objective: what is minimised.
        constraint: where the images must stay.
        stepper: how they move.
        beta: of the surrogate at a step.
        reference: the original images.
        target: the original classes, [B].
        strictness: share of the output's prefactor that counts at a step; iterates are judged by
            all of it.
        judge_every: how often an iterate is judged on the original model, in steps.
        ask_every: how often it is asked whether the loss is finite, in steps. A GPU is waited for.
        progress: called after every step.
        capture: how the differentiable part of a step runs; see ``Steps``.
        owner: the user's model, with which captured steps are kept; ``model`` if not given.
    """

    model: nn.Module
    surrogate: Smoothed | None
    explainer: Explainer
    objective: ReachMap
    constraint: Constraint
    stepper: Stepper
    beta: Callable[[int], float | None]
    reference: Observation
    target: Tensor
    strictness: Callable[[int], float] = lambda _: 1.0
    judge_every: int = 10
    ask_every: int = 1
    progress: Progress | None = None
    capture: str = "never"
    owner: nn.Module | None = None

    def run(self, start: Tensor, iterations: int) -> None:
        """Optimise from ``start``; leaves ``x``, ``best``, ``history``, ``done``, ``stopped``.

        ``history`` has per name in ``NOTED`` a tensor [done, B].
        """
        self.x = self.constraint.project(start, self.reference.x).detach().clone()
        self.x.requires_grad_(True)
        origin = self.reference
        first = self.objective(origin, origin).detach()
        self.best = Best(origin.x.clone(), first.clone(), self.target)
        # Written in place: small tensors kept among a step's large ones would leave holes in the
        # heap which the next step's do not fit, and a long attack's process grew by gigabytes.
        empty = first.new_full((iterations, len(first)), float("nan"))
        self.history = {name: empty.clone() for name in NOTED}
        self.done = 0
        self.vanished = torch.zeros_like(first, dtype=torch.bool)
        self._broken = torch.zeros_like(first, dtype=torch.bool)
        self._ends = self._broken.new_zeros(iterations)
        self._good = self.x.detach().clone()
        self.stopped = "finished"
        self.steps = Steps(
            Look(
                *(self.model, self.surrogate, self.explainer),
                *(self.objective, self.reference, self.target),
            ),
            self.capture,
            self.model if self.owner is None else self.owner,
            iterations,
        )
        try:
            for iteration in range(iterations):
                self._step(iteration, iterations)
                if self._over(iteration, iterations):
                    break
                if self.surrogate is not None and (iteration + 1) % self.judge_every == 0:
                    self.judge()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        self.history = {name: kept[: self.done] for name, kept in self.history.items()}
        self.judge()

    def _over(self, iteration: int, iterations: int) -> bool:
        """Whether no image is left to go on with.

        Steps done in vain, where that is not asked after each, are forgotten.
        """
        self._ends[iteration] = self._broken.all()
        due = (iteration + 1) % self.ask_every == 0 or iteration + 1 == iterations
        if not due or not bool(self._ends[iteration]):
            return False
        last = int(self._ends.int().argmax())
        self.done = last + 1
        self.stopped = "not finite"
        log.warning("the loss is no longer finite: stopped at step %d", last)
        return True

    def judge(self) -> None:
        """Offer the current iterate, seen by the original model, as the best."""
        with torch.no_grad():
            now = observe(self.model, self.explainer, self.x.detach(), self.target)
            self.best.offer(now, self.objective(now, self.reference))

    def _step(self, iteration: int, iterations: int) -> None:
        beta = self.beta(iteration)
        heat, logits, loss, grad = self.steps(self.x, beta, self.strictness(iteration))
        now = Observation(self.x, heat, logits)
        if iteration == 0:
            self._check_vanished(grad)
        if self.surrogate is None:
            self.best.offer(now, self.objective(now, self.reference))
        finite = torch.isfinite(loss) & torch.isfinite(grad).flatten(1).all(dim=1)
        self._broken |= ~finite
        moving = (~self._broken).view(-1, *[1] * (self.x.dim() - 1))
        before = self.x.detach().clone()
        with torch.no_grad():
            # An image that has broken stays at its last good iterate, which is judged in the end.
            self._good = torch.where(moving, before, self._good)
            self.stepper.step(self.x, torch.where(moving, grad, 0.0), iteration, iterations)
            projected = self.constraint.project(self.x, self.reference.x)
            self.x.copy_(torch.where(moving, projected, self._good))
        self._note(iteration, now, loss, before, beta)
        if self.progress is not None:
            latest = {name: noted[iteration] for name, noted in self.history.items()}
            numbers = {"similarity": latest["map_pcc"], "loss": latest["loss"]}
            self.progress(iteration + 1, iterations, Means(numbers))

    def _check_vanished(self, grad: Tensor) -> None:
        self.vanished = grad.flatten(1).abs().amax(dim=1) == 0
        if bool(self.vanished.any()):
            log.warning(
                "the map's gradient is zero for image %s: a ReLU network's gradient is piecewise "
                "constant; let the attack smooth it (beta growth)",
                self.vanished.nonzero().flatten().tolist(),
            )

    def _note(
        self, iteration: int, now: Observation, loss: Tensor, x: Tensor, beta: float | None
    ) -> None:
        with torch.no_grad():
            row: dict[str, Tensor | float] = {
                "loss": loss,
                "map_mse": self.objective.map_error(now),
                "map_pcc": pcc(now.map, self.objective.target),
                "output_mse": self.objective.output_error(now, self.reference),
                "image_mse": (x - self.reference.x).square().flatten(1).mean(dim=1),
                "beta": float("nan") if beta is None else beta,
            }
            for name, value in row.items():
                self.history[name][iteration] = value
        self.done = iteration + 1
