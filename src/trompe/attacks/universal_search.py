"""The search for one change that fits all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attacks.arguments import checked_objective
from trompe.attacks.constraints import Ball, LInfBall
from trompe.attacks.differentiate import Differentiate
from trompe.attacks.keep import Keep
from trompe.attacks.loss import Loss
from trompe.attacks.objectives import Objective
from trompe.attacks.observation import Observation, observe
from trompe.attacks.presets import preset_for
from trompe.attacks.steps import ScaledAdam, Signed, Step
from trompe.attacks.surrogate import differentiated, surrogate_of
from trompe.attacks.universal_result import Judged
from trompe.explain.base import Method
from trompe.metrics import pcc
from trompe.outputs import Outputs
from trompe.per_image import per_image
from trompe.types import Explainer, InputSpace, Progress, heatmap


@dataclass(frozen=True)
class Batch:
    """Images as the original model sees them, what their maps become, and the classes."""

    seen: Observation
    objective: Objective
    target: Tensor


@dataclass(frozen=True)
class Search:
    """All that the search was asked for, beside the images."""

    model: nn.Module
    method: Explainer
    space: InputSpace
    ball: Ball
    outputs: Outputs
    objective: str | Objective
    target_map: Tensor | None
    keep: Keep

    def look(self, x: Tensor) -> Batch:
        """Explain the original images.

        Raises:
            ExplanationError: if one has no map.
        """
        aim = checked_objective(self.objective, self.target_map, x, relative=True)
        with torch.no_grad():
            target = self.outputs.explained(self.model(x))
            seen = observe(self.model, self.method, x, target)
            heatmap(seen.relevance)  # raises: which image has no map
            prepared = aim.prepare(seen, self._map)
        return Batch(seen, prepared, target)

    def _map(self, x: Tensor, target: Tensor) -> Tensor:
        return observe(self.model, self.method, x, target).map

    def loss(self, batch: Batch) -> Loss:
        """What is minimised on one batch."""
        price = (1.0, 0.0) if self.keep.what == "class" else (1.0, 1.0)
        return Loss(batch.objective, self.keep, self.space, prefactors=price, relative=True)

    def run(
        self,
        sets: Sequence[Batch],
        epochs: int,
        step: Step | None,
        draw: torch.Generator,
        progress: Progress | None,
    ) -> tuple[Tensor, int, str]:
        """The best change [C, H, W], the steps done, and how it ended."""
        first = sets[0].seen.x
        settings = preset_for(
            "fast", self.method if isinstance(self.method, Method) else "gradient", first.shape[-2]
        )
        method = differentiated(settings, self.model, self.method)
        surrogate = surrogate_of(settings, self.model, first, method=method)
        unit = self.space.scale(1.0, first)
        # Not 0, where the gradient of unlikeness is 0.
        noise = torch.randn(first[:1].shape, generator=draw).to(first)
        change = self._within(noise, unit) / 4
        stepper = (step or self._steps(first)).begin(change, self.space)
        best, lowest = torch.zeros_like(change), self._score(sets, torch.zeros_like(change))
        total, done = epochs * len(sets), 0
        try:
            for _ in range(epochs):
                for batch in sets:
                    work = Differentiate(
                        self.model, surrogate, method, self.loss(batch), batch.seen,
                        batch.target,
                    )  # fmt: skip
                    x = self.space.clamp(batch.seen.x + change)
                    grad = work(x, settings.beta(done, total), 1.0, *work.constants).grad
                    length = grad.flatten(1).norm(dim=1)
                    good = torch.isfinite(length) & (length > 0)
                    equal = torch.where(
                        per_image(good, grad), grad / per_image(length.clamp_min(1e-30), grad), 0.0
                    )
                    stepper.step(change, equal.mean(dim=0, keepdim=True), done, total)
                    change = self._within(change, unit)
                    done += 1
                    if progress is not None:
                        progress(done, total, {"score": lowest})
                score = self._score(sets, change)
                if score < lowest:
                    best, lowest = change.clone(), score
        except KeyboardInterrupt:
            return best[0], done, "interrupted"
        return best[0], done, "finished"

    def _steps(self, x: Tensor) -> Step:
        if isinstance(self.ball, LInfBall):
            return Signed(self.ball.radius / 4)
        # What a pixel may change by if all do alike.
        return ScaledAdam(self.ball.radius / x[0].numel() ** 0.5)

    def _within(self, change: Tensor, unit: Tensor) -> Tensor:
        """The nearest change of the ball, normalised units, [1, C, H, W]."""
        return self.ball.norm.within(change / unit, self.ball.radius) * unit

    def _score(self, sets: Sequence[Batch], change: Tensor) -> float:
        """The mean score on the original model; an image that loses its answer gains nothing."""
        scores = []
        for batch in sets:
            loss = self.loss(batch)
            now = self._see(batch, change)
            kept = self.keep.kept(now, batch.seen)
            scores.append(
                torch.where(kept, loss.score(now, batch.seen), loss.score(batch.seen, batch.seen))
            )
        return float(torch.cat(scores).nanmean())

    def _see(self, batch: Batch, change: Tensor) -> Observation:
        with torch.no_grad():
            x = self.space.clamp(batch.seen.x + change)
            return observe(self.model, self.method, x, batch.target)

    def judged(self, sets: Sequence[Batch], change: Tensor) -> Judged:
        """What a change [C, H, W] does to batches."""
        original, target, kept = [], [], []
        for batch in sets:
            now = self._see(batch, change)
            original.append(pcc(now.map, batch.seen.map).cpu())
            kept.append(self.outputs.kept(now.logits, batch.seen.logits).cpu())
            if batch.objective.aim is not None:
                target.append(pcc(now.map, batch.objective.aim).cpu())
        return Judged(torch.cat(original), torch.cat(target) if target else None, torch.cat(kept))
