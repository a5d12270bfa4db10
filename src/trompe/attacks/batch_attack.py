"""One attack on images that fit into memory together."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attack_result import AfterChannel
from trompe.attacks.arguments import checked_classes, checked_logits, named_derivatives
from trompe.attacks.channels import Channel
from trompe.attacks.constant_map import CONSTANT_MAP, is_constant
from trompe.attacks.keep import Keep
from trompe.attacks.loop import Attack
from trompe.attacks.loss import Loss
from trompe.attacks.objectives import Objective
from trompe.attacks.observation import Observation, observe
from trompe.attacks.presets import Preset
from trompe.attacks.surrogate import differentiated, surrogate_of
from trompe.geometry.own_functions import check_own_functions
from trompe.types import AttackResult, Explainer, Follow, InputSpace, Progress, heatmap

log = logging.getLogger("trompe")


@dataclass(frozen=True)
class BatchAttack:
    """All that ``manipulate`` was asked for, beside the images.

    Args:
        judge: the original model, frozen.
        method: the method attacked.
        space: the model's normalisation.
        settings: of the attack.
        keep_output: what of the output stays.
        through: the channels after which the map must have changed, too.
        keep: per image the best iterate that keeps the output, or the last one.
        progress: called after every step.
        capture: how the differentiable part of a step runs.
        owner: the model as it was given, with which captured steps are kept.
        generator: of the channels' noise.
        redraw: whether a method that draws draws anew in every step.
        follow: given the images after every step.
    """

    judge: nn.Module
    method: Explainer
    space: InputSpace
    settings: Preset
    keep_output: Keep
    through: tuple[Channel, ...]
    keep: str
    progress: Progress | None
    capture: str
    owner: nn.Module
    generator: torch.Generator | None
    redraw: bool
    follow: Follow | None = None

    def run(
        self, x: Tensor, start: Tensor, objective: Objective, classes: Tensor | None
    ) -> AttackResult:
        """Attack ``x`` [B, C, H, W] from ``start``, of the classes explained or the predicted."""
        judge, method, settings = self.judge, self.method, self.settings
        logits = checked_logits(judge, x)
        target = (
            self.keep_output.outputs.explained(logits)
            if classes is None
            else checked_classes(classes, logits)
        )
        reference = self._reference(x, target)
        check_own_functions(method, judge, x, target)
        objective = objective.prepare(reference, self._map)
        begin = objective.start(reference)
        attack = Attack(
            model=judge,
            surrogate=surrogate_of(settings, judge, x, method=method),
            explainer=method,
            differentiated=differentiated(settings, judge, method),
            loss=Loss(
                objective,
                self.keep_output,
                self.space,
                prefactors=settings.prefactors,
                relative=settings.relative,
                closeness=settings.closeness,
            ),
            constraint=settings.constraint,
            stepper=settings.step.begin(x, self.space),
            beta=lambda iteration: settings.beta(iteration, settings.iterations),
            strictness=lambda iteration: settings.strictness(iteration, settings.iterations),
            reference=reference,
            target=target,
            through=self.through,
            ask_every=1 if x.device.type == "cpu" else 10,
            progress=self.progress,
            capture=self.capture,
            owner=self.owner,
            generator=self.generator,
            redraw=self.redraw,
            follow=self.follow,
        )
        constant = settings.iterations > 0 and self._is_constant(x, target, reference)
        with named_derivatives(getattr(method, "name", type(method).__name__)):
            attack.run(
                start if begin is None else begin + (start - x),
                0 if constant else settings.iterations,
            )
        if bool(attack.unmoved.any()):
            log.warning(
                "the explanation of image %s did not change at all while the image did: it does "
                "not depend on the image there, so this attack says nothing about it",
                attack.unmoved.nonzero().flatten().tolist(),
            )
        found = attack.x.detach() if self.keep == "last" else attack.best.x
        with torch.no_grad():
            final = observe(judge, method, found, target)
        aim = objective.aim
        return AttackResult(
            x=x.cpu(),
            x_adv=found.cpu(),
            target_class=target.cpu(),
            map_original=reference.map.cpu(),
            map_target=None if aim is None else aim.cpu(),
            map_adv=final.map.cpu(),
            logits_original=reference.logits.cpu(),
            logits_adv=final.logits.cpu(),
            history={key: noted.cpu() for key, noted in attack.history.items()},
            iterations=attack.done,
            stopped=CONSTANT_MAP if constant else attack.stopped,
            after={repr(way): self._after(way, x, found, target) for way in self.through},
            provenance={
                "vanishing_gradient": attack.vanished.tolist(),
                "unmoved": (attack.unmoved | constant).tolist(),
                "runner": attack.steps.ran,
            },
            outputs=self.keep_output.outputs,
        )

    def _reference(self, x: Tensor, target: Tensor) -> Observation:
        with torch.no_grad():
            reference = observe(self.judge, self.method, x, target)
            if not bool(torch.isfinite(reference.map).all()):
                heatmap(self.method(self.judge, x, target))  # raises: which image has no map
        return reference

    def _is_constant(self, x: Tensor, target: Tensor, reference: Observation) -> bool:
        """Whether no change of the images could change their maps; a warning says so."""
        if not is_constant(self.judge, self.method, x, target, reference):
            return False
        log.warning(
            "%s is not attacked: its map of this model is the same for every image, so that no "
            "attack says anything about it; explain by another method",
            getattr(self.method, "name", type(self.method).__name__),
        )
        return True

    def _after(self, way: Channel, x: Tensor, found: Tensor, target: Tensor) -> AfterChannel:
        """What the real channel leaves of the manipulated images, and does to the original ones."""
        with torch.no_grad():
            changed, clean = (
                observe(self.judge, self.method, way.real(one, self.space, self.generator), target)
                for one in (found, x)
            )
        return AfterChannel(changed.map.cpu(), clean.map.cpu(), changed.logits.cpu())

    def _map(self, x: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            return heatmap(self.method(self.judge, x, target)).detach()
