"""One attack on images that fit into memory together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trompe.attacks.arguments import predicted
from trompe.attacks.constraints import Constraint, LInfBall, ValidImage
from trompe.attacks.loop import Attack
from trompe.attacks.objectives import ReachMap
from trompe.attacks.observation import observe
from trompe.attacks.optimisers import AdamStep, ScaledAdamStep, SignStep, Stepper
from trompe.attacks.presets import Preset
from trompe.engine import smooth
from trompe.engine.kinks import kinks
from trompe.types import AttackResult, Explainer, InputSpace, Progress, heatmap


@dataclass(frozen=True)
class Plan:
    """All that ``manipulate`` was asked for, beside the images.

    Args:
        judge: the original model, frozen.
        method: the method attacked.
        space: the model's normalisation.
        settings: of the attack.
        output: whether the softmax or the logits are kept.
        keep: per image the best iterate that keeps the class, or the last one.
        progress: called after every step.
        capture: how the differentiable part of a step runs.
        owner: the model as it was given, with which captured steps are kept.
    """

    judge: nn.Module
    method: Explainer
    space: InputSpace
    settings: Preset
    output: Literal["softmax", "logits"]
    keep: str
    progress: Progress | None
    capture: str
    owner: nn.Module

    def run(self, x: Tensor, start: Tensor, aim: Tensor) -> AttackResult:
        """Attack ``x`` [B, C, H, W] from ``start`` towards the heat maps ``aim`` [B, H, W]."""
        judge, method, settings = self.judge, self.method, self.settings
        target = predicted(judge, x)
        with torch.no_grad():
            reference = observe(judge, method, x, target)
            if not bool(torch.isfinite(reference.map).all()):
                heatmap(method(judge, x, target))  # raises, and says which image has no map
        surrogate = None
        if settings.beta_start is not None:
            surrogate = smooth(
                judge,
                beta=settings.beta_start,
                pooling=settings.pooling,
                activations=self._smooths_activations(x),
            )
        attack = Attack(
            model=judge,
            surrogate=surrogate,
            explainer=method,
            objective=ReachMap(
                *(aim, settings.prefactors, self.output, settings.relative),
                *(settings.closeness, self.space),
            ),
            constraint=self._constraint(),
            stepper=self._stepper(x),
            beta=lambda iteration: settings.beta(iteration, settings.iterations),
            strictness=lambda iteration: settings.strictness(iteration, settings.iterations),
            reference=reference,
            target=target,
            ask_every=1 if x.device.type == "cpu" else 10,
            progress=self.progress,
            capture=self.capture,
            owner=self.owner,
        )
        attack.run(start, settings.iterations)
        found = attack.x.detach() if self.keep == "last" else attack.best.x
        with torch.no_grad():
            final = observe(judge, method, found, target)
        return AttackResult(
            x=x.cpu(),
            x_adv=found.cpu(),
            target_class=target.cpu(),
            map_original=reference.map.cpu(),
            map_target=aim.cpu(),
            map_adv=final.map.cpu(),
            logits_original=reference.logits.cpu(),
            logits_adv=final.logits.cpu(),
            history={key: noted.cpu() for key, noted in attack.history.items()},
            iterations=attack.done,
            stopped=attack.stopped,
            provenance={
                "vanishing_gradient": attack.vanished.tolist(),
                "runner": attack.steps.ran,
            },
        )

    def _smooths_activations(self, x: Tensor) -> bool:
        if isinstance(self.settings.activations, bool):
            return self.settings.activations
        return all(kink.fate != "pooling" for kink in kinks(self.judge, x[:1]).kinks)

    def _constraint(self) -> Constraint:
        radius = self.settings.radius
        return ValidImage(self.space) if radius is None else LInfBall(self.space, radius)

    def _stepper(self, x: Tensor) -> Stepper:
        settings = self.settings
        if settings.radius is None:
            return AdamStep(settings.learning_rate)
        kind = ScaledAdamStep if settings.adaptive else SignStep
        return kind(self.space.scale(settings.step * settings.radius, x), settings.momentum)
