"""The optimisation: look, compare, step, project; keep the best; end well whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attacks.captured_step import CapturedStep
from trompe.attacks.channels import Channel
from trompe.attacks.constraints import Constraint
from trompe.attacks.differentiate import Differentiate
from trompe.attacks.level_set import LevelSet
from trompe.attacks.loss import Loss
from trompe.attacks.means import Means
from trompe.attacks.observation import Observation, observe
from trompe.attacks.steps import Heeding, Stepper
from trompe.engine.smoothing import Smoothed
from trompe.per_image import per_image
from trompe.types import Explainer, Follow, Progress

log = logging.getLogger("trompe")

NOTED = ("output_mse", "image_mse", "beta")
"""What is noted of every image in every step, beside the loss and the objective's own measures."""


_ROUNDING = 64
"""Maps that differ by so many units in the last place of the largest entry are the same."""


@dataclass
class Best:
    """The best iterate of each image so far, judged on the original model.

    Args:
        x: the iterates, [B, C, H, W].
        score: theirs on the original model, [B]; lower is better.
    """

    x: Tensor
    score: Tensor

    def offer(self, x: Tensor, score: Tensor, kept: Tensor) -> None:
        """Take over the images that keep their output (bool [B]) and have a lower score."""
        better = kept & (score < self.score)
        images = per_image(better, self.x)
        self.x = torch.where(images, x.detach(), self.x)
        self.score = torch.where(better, score.detach(), self.score)


@dataclass
class Attack:
    """One batch under attack; ``run`` does the work and can be interrupted.

    Args:
        model: the original model, by which everything is judged.
        surrogate: the smoothed model that is differentiated, or ``None`` for the model itself.
        explainer: the method attacked.
        loss: what is minimised.
        constraint: where the images must stay.
        stepper: how they move.
        beta: the surrogate's at a step.
        reference: the original images.
        target: the classes explained, [B].
        through: the channels after which the map must have changed, too.
        strictness: share of the output's prefactor that counts at a step; iterates are judged by
            all of it.
        judge_every: how often an iterate is judged on the original model, in steps.
        ask_every: how often it is asked whether the loss is finite, in steps. A GPU is waited for.
        progress: called after every step.
        capture: how the differentiable part of a step runs; see ``CapturedStep``.
        differentiated: the method as the surrogate's derivative has it; ``explainer`` if not given.
        owner: the user's model, with which captured steps are kept; ``model`` if not given.
        generator: of the channels' noise.
        redraw: whether a method that draws (masks, noise) draws anew in every step; it is judged
            as it is.
        watch: shown every iterate as the original model sees it, as often as that is asked.
        follow: given the number of steps done and the images as they are then, after every step.
    """

    model: nn.Module
    surrogate: Smoothed | None
    explainer: Explainer
    loss: Loss
    constraint: Constraint
    stepper: Stepper
    beta: Callable[[int], float | None]
    reference: Observation
    target: Tensor
    through: tuple[Channel, ...] = ()
    strictness: Callable[[int], float] = lambda _: 1.0
    judge_every: int = 10
    ask_every: int = 1
    progress: Progress | None = None
    capture: str = "never"
    differentiated: Explainer | None = None
    owner: nn.Module | None = None
    generator: torch.Generator | None = None
    redraw: bool = False
    watch: Callable[[Observation], None] | None = None
    follow: Follow | None = None

    def run(self, start: Tensor, iterations: int) -> None:
        """Optimise from ``start``; leaves ``x``, ``best``, ``history``, ``done``, ``stopped``.

        ``history`` has per name a tensor [done, B]: the loss, what the objective measures, and
        ``NOTED``.
        """
        self.x = self._project(start).detach().clone()
        self.x.requires_grad_(True)
        origin = self.reference
        with torch.no_grad():
            first = self._score(origin).detach()
            names = ("loss", *self.loss.objective.measures(origin, origin), *NOTED)
        self._shown = names[1]
        self.best = Best(origin.x.clone(), first.clone())
        # Written in place: small tensors kept among a step's large ones would leave holes in the
        # heap which the next step's do not fit, and a long attack's process grew by gigabytes.
        empty = first.new_full((iterations, len(first)), float("nan"))
        self.history = {name: empty.clone() for name in names}
        self._told = torch.full_like(first, torch.inf)
        self.done = 0
        self.vanished = torch.zeros_like(first, dtype=torch.bool)
        self.changed, self.moved = self.vanished.clone(), self.vanished.clone()
        self._broken = torch.zeros_like(first, dtype=torch.bool)
        self._ends = self._broken.new_zeros(iterations)
        self._good = self.x.detach().clone()
        self.stopped = "finished"
        self._level: LevelSet | None = None
        if self.loss.keep.tolerance is not None:
            self._level = LevelSet(
                self.model, self.loss.keep, origin, self.constraint, self.loss.space
            )
        self.steps = CapturedStep(
            Differentiate(
                model=self.model,
                surrogate=self.surrogate,
                explainer=self.differentiated or self.explainer,
                loss=self.loss,
                reference=self.reference,
                target=self.target,
                through=self.through,
                generator=self.generator,
                redraw=self.redraw,
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
                if not self._offered and (iteration + 1) % self.judge_every == 0:
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

    @property
    def _offered(self) -> bool:
        """Whether each iterate is offered as it is differentiated, with no look of its own."""
        return self.surrogate is None and self._level is None

    @property
    def unmoved(self) -> Tensor:
        """Images that changed while their map stayed the same but for rounding, bool [B]."""
        return self.changed & ~self.moved

    def judge(self) -> None:
        """Offer the current iterate, seen by the original model, as the best."""
        with torch.no_grad():
            if self._level is not None:
                self.x.copy_(self._level.restore(self.x.detach()))
            now = observe(self.model, self.explainer, self.x.detach(), self.target)
            self._offer(now)

    def _offer(self, now: Observation) -> None:
        kept = self.loss.keep.kept(now, self.reference)
        score = self._score(now)
        self.best.offer(now.x, score, kept)
        # An iterate without the output is worse than any with it, and no place to go back to.
        self._told = torch.where(kept, score, torch.inf)
        self.changed |= (now.x != self.reference.x).flatten(1).any(dim=1)
        self.moved |= self._differs(now.map)
        if self.watch is not None:
            self.watch(now)

    def _differs(self, heat: Tensor) -> Tensor:
        """Whether maps differ from the original ones by more than rounding, [B]."""
        before = self.reference.map.flatten(1)
        least = _ROUNDING * torch.finfo(before.dtype).eps * before.amax(dim=1)
        return (heat.flatten(1) - before).abs().amax(dim=1) > least

    def _score(self, now: Observation) -> Tensor:
        """The score of images, [B]: its mean over them as they are and after each channel."""
        scores = [self.loss.score(now, self.reference)]
        for channel in self.through:
            x = channel.real(now.x.detach(), self.loss.space, self.generator)
            seen = observe(self.model, self.explainer, x, self.target)
            scores.append(self.loss.score(seen, self.reference))
        return torch.stack(scores).mean(dim=0) if self.through else scores[0]

    def _project(self, x: Tensor) -> Tensor:
        return self.constraint.project(x, self.reference.x, self.loss.space)

    def _step(self, iteration: int, iterations: int) -> None:
        beta = self.beta(iteration)
        heat, logits, relevance, loss, grad = self.steps(self.x, beta, self.strictness(iteration))
        now = Observation(self.x, heat, logits, relevance)
        if iteration == 0:
            self._check_vanished(grad)
        if self._offered:
            with torch.no_grad():
                self._offer(now)
        finite = torch.isfinite(loss) & torch.isfinite(grad).flatten(1).all(dim=1)
        self._broken |= ~finite
        moving = per_image(~self._broken, self.x)
        before = self.x.detach().clone()
        with torch.no_grad():
            # An image that has broken stays at its last good iterate, which is judged in the end.
            self._good = torch.where(moving, before, self._good)
            if isinstance(self.stepper, Heeding):
                # The surrogate's loss, where the original model is asked too seldom.
                always = self._offered or self.judge_every == 1
                self.stepper.heed(before, self._told if always else loss)
            grad = torch.where(moving, grad, 0.0)
            if self._level is not None:
                self._level.look(before)
                grad = self._level.tangent(grad)
            self.stepper.step(self.x, grad, iteration, iterations)
            if self._level is not None:
                self.x.copy_(before + self._level.along(self.x - before))
            projected = self._project(self.x)
            self.x.copy_(torch.where(moving, projected, self._good))
        self._note(iteration, now, loss, before, beta)
        if self.progress is not None:
            latest = {name: noted[iteration] for name, noted in self.history.items()}
            shown = "similarity" if self._shown == "map_pcc" else self._shown
            numbers = {shown: latest[self._shown], "loss": latest["loss"]}
            self.progress(iteration + 1, iterations, Means(numbers))
        if self.follow is not None:
            self.follow(iteration + 1, self.x.detach().clone())

    def _check_vanished(self, grad: Tensor) -> None:
        self.vanished = grad.flatten(1).abs().amax(dim=1) == 0
        if bool(self.vanished.any()) and self.watch is None:  # who watches draws conclusions
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
                **self.loss.objective.measures(now, self.reference),
                "output_mse": self.loss.keep.error(now, self.reference),
                "image_mse": (x - self.reference.x).square().flatten(1).mean(dim=1),
                "beta": float("nan") if beta is None else beta,
            }
            for name, value in row.items():
                self.history[name][iteration] = value
        self.done = iteration + 1
