"""The ensemble on images that fit into memory together."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trompe.attacks import Keep, preset_for
from trompe.attacks.batches import out_of_memory
from trompe.attacks.constraints import Ball
from trompe.attacks.loop import Attack
from trompe.attacks.loss import Loss
from trompe.attacks.observation import Observation, observe
from trompe.attacks.queries import Queries, Spent, Square
from trompe.attacks.surrogate import differentiated, surrogate_of
from trompe.engine.kinks import kinks
from trompe.errors import ExplanationError
from trompe.explain.base import Method
from trompe.geometry.own_functions import check_own_functions
from trompe.metrics import pcc
from trompe.outputs import Outputs
from trompe.robustness import doubts
from trompe.robustness.expected import DRAWS
from trompe.robustness.lead import WithAnswer
from trompe.robustness.likeness import comparable
from trompe.robustness.members import QUERIES, STEPS, Member, members
from trompe.robustness.result import RobustnessResult
from trompe.robustness.worst import Worst
from trompe.types import Explainer, InputSpace, Progress

log = logging.getLogger("trompe")

QUERY_MEMBER = "square"


@dataclass(frozen=True)
class Plan:
    """What ``auto_attack`` was asked for, beside the images.

    Args:
        model: the original model, frozen.
        base: the method attacked, whose settings the surrogate has.
        explainer: the method as it is judged: of its mean over draws in the version ``rand``.
        space: the model's normalisation.
        ball: where images must stay.
        outputs: what the model's outputs mean.
        budget: share of the steps and queries taken.
        random: whether the model or the method answers by chance.
        gradient_fault: what was said of a gradient that is not that of the output; empty else.
        generator: of all random numbers.
        progress: called after every step and query.
    """

    model: nn.Module
    base: Explainer
    explainer: Explainer
    space: InputSpace
    ball: Ball
    outputs: Outputs
    budget: float
    random: bool
    gradient_fault: str
    generator: torch.Generator
    progress: Progress | None = None

    def share_of(self, count: int) -> int:
        """The budget's share of a number of steps or queries, at least 1."""
        return max(1, round(self.budget * count))


class Ensemble:
    """All members, one after the other, on some images.

    Args:
        plan: what was asked for.
        x: the images, normalised, [B, C, H, W].
        target: the classes explained, [B].
    """

    def __init__(self, plan: Plan, x: Tensor, target: Tensor) -> None:
        self.plan, self.x, self.target = plan, x, target
        self.flags: dict[str, Tensor] = {}
        self.failures: dict[str, str] = {}
        self.stopped = "finished"
        self.forwards = 0
        self.derivatives = self.maps = self.queries = 0
        self.done = self.total = 0

    def run(self) -> RobustnessResult:
        """Run every member; what one cannot do, the others still do.

        Raises:
            ExplanationError: if an original image has no map.
        """
        plan = self.plan
        with self._counted():
            reference = self._look()
            self.worst = Worst(reference, plan.outputs, plan.ball, plan.space)
            crew = members(plan.model, plan.explainer, reference, plan.ball)
            steps, queries = plan.share_of(STEPS), plan.share_of(QUERIES)
            if plan.random:  # each of them takes as many draws
                queries = max(1, queries // DRAWS)
            self.total = sum(member.patience for member in crew) * steps + queries
            for member in crew:
                own = member.patience * steps
                self._try(member.name, lambda m=member, n=own: self._climb(m, reference, n))
                if self.stopped == "interrupted":
                    break
            else:
                self._try(QUERY_MEMBER, lambda: self._query(reference, queries))
        self._doubt()
        return self._result(reference)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Forward passes of the network are counted, image by image."""

        def count(module: nn.Module, given: Any) -> None:
            if given and isinstance(given[0], Tensor):
                self.forwards += len(given[0])

        handle = self.plan.model.register_forward_pre_hook(count)
        try:
            yield
        finally:
            handle.remove()

    def _look(self) -> Observation:
        """The original images, seen twice where chance must be told."""
        plan = self.plan
        with torch.no_grad():
            reference = observe(plan.model, plan.explainer, self.x, self.target)
            comparable(reference.relevance)  # raises: which image has no map
            if not bool(torch.isfinite(reference.map).all()):
                raise ExplanationError("an original image has no map")
            if not plan.random:
                again = observe(plan.model, plan.explainer, self.x, self.target)
                self._flag(doubts.RANDOM, doubts.differs(reference.map, again.map))
        return reference

    def _flag(self, name: str, where: Tensor) -> None:
        self.flags[name] = self.flags.get(name, torch.zeros_like(where)) | where

    def _try(self, name: str, work: Any) -> None:
        began = self.done
        try:
            work()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        except Exception as error:  # the model and the method are the user's: anything can happen
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            log.info("member %s failed: %s", name, reason)
            self.failures[name] = reason
            self.done = began

    def _tell(self, done: int) -> None:
        if self.plan.progress is not None:
            pcc = self.worst.values["pcc"]
            self.plan.progress(self.done + done, self.total, {"worst pcc": float(pcc.nanmean())})

    def _climb(self, member: Member, reference: Observation, steps: int) -> None:
        """One member that follows derivatives."""
        plan = self.plan
        check_own_functions(plan.base, plan.model, self.x, self.target)
        known = plan.base if isinstance(plan.base, Method) else "gradient"
        settings = preset_for("fast", known, self.x.shape[-2])
        if settings.per_layer:  # no softmax must be kept, which a smoother beginning would lose
            settings = replace(settings, beta_start=member.betas[0], beta_end=member.betas[1])

        def watch(now: Observation) -> None:
            self.maps += 1
            self.worst.offer(now, member.name)

        attack = Attack(
            model=plan.model,
            surrogate=surrogate_of(
                settings, plan.model, self.x, method=plan.explainer, random=plan.random
            ),
            explainer=plan.explainer,
            differentiated=differentiated(settings, plan.model, plan.explainer),
            loss=Loss(
                WithAnswer(member.objective, plan.outputs),
                Keep("class"),
                plan.space,
                prefactors=(1.0, 0.0),
            ),
            constraint=plan.ball,
            stepper=member.step.begin(self.x, plan.space),
            beta=lambda iteration: settings.beta(iteration, steps),
            reference=reference,
            target=self.target,
            judge_every=1,
            progress=lambda iteration, _, __: self._tell(iteration),
            generator=plan.generator,
            watch=watch,
        )
        start = plan.ball.start(self.x, plan.space, plan.generator)
        attack.run(start, steps)
        self.done += attack.done
        self.derivatives += attack.done
        self._flag(doubts.ZERO_GRADIENT, attack.vanished)
        if attack.stopped == "not finite":
            self._flag(doubts.NOT_FINITE, torch.ones_like(attack.vanished))
        if member.name == "unlike" and attack.surrogate is not None and attack.done:
            last = attack.history["original_pcc"][-1]
            self._flag(
                doubts.SURROGATE_DISAGREES, doubts.surrogate_further(self.worst, "unlike", last)
            )
        if attack.stopped == "interrupted":
            self.stopped = "interrupted"

    def _query(self, reference: Observation, queries: int) -> None:
        """The member that takes no derivative, on the original network.

        Like AutoAttack's, which is run on what the others have not broken, it goes on after a
        fifth of its queries only if it may still find a worse map of one of the images.
        """
        plan = self.plan

        def look(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad():
                now = observe(plan.model, plan.explainer, x, self.target)
                self.worst.offer(now, QUERY_MEMBER)
            self.maps += 1
            self.queries += 1
            if self.queries == queries // 5 and doubts.out_of_reach(self.worst, QUERY_MEMBER):
                raise Spent
            likeness = pcc(now.map, reference.map)
            return likeness, likeness, plan.outputs.kept(now.logits, reference.logits)

        alike = torch.ones_like(reference.map[:, 0, 0])
        asks = Queries(
            look, queries, self.x, score=alike, loss=alike, watch=lambda asked, _: self._tell(asked)
        )
        with contextlib.suppress(Spent):
            Square().run(asks, self.x, plan.ball, plan.space, plan.generator)
        self.done += queries

    def _doubt(self) -> None:
        worst = self.worst
        self._flag(doubts.MASKED, doubts.black_box_wins(worst, QUERY_MEMBER))
        for name in ("unlike", "unlike, again", "unlike, sharper"):
            self._flag(doubts.STILL_FALLING, doubts.falling(worst, name))
        self._flag(doubts.NOT_FINITE, worst.lost > 0)
        self._flag(doubts.NOTHING_JUDGED, worst.judged == 0)
        nowhere = torch.zeros_like(worst.judged, dtype=torch.bool)
        self._flag(doubts.MEMBER_FAILED, nowhere | bool(self.failures))
        second = not (isinstance(self.plan.base, Method) and self.plan.base.first_order)
        if not self.plan.random:
            unseen = bool(self.plan.gradient_fault) or (
                second and bool(kinks(self.plan.model, self.x[:1], pooling=True).remaining)
            )
            self._flag(doubts.KINKS_REMAIN, nowhere | unseen)

    def _result(self, reference: Observation) -> RobustnessResult:
        worst, count = self.worst, len(self.x)

        def down(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

        raised = {name: where.tolist() for name, where in self.flags.items()}
        return RobustnessResult(
            x=self.x.cpu(),
            target=self.target.cpu(),
            maps=reference.map.detach().cpu(),
            worst=down(worst.values),
            images=down(worst.images),
            found_by={name: list(who) for name, who in worst.found_by.items()},
            by_member={name: down(values) for name, values in worst.by_member.items()},
            judged=worst.judged.cpu(),
            flipped=worst.flipped.cpu(),
            flags=[[name for name in raised if raised[name][i]] for i in range(count)],
            failures=dict(self.failures),
            radius=self.plan.ball.radius,
            norm=type(self.plan.ball).__name__,
            cost={
                "forward_passes": self.forwards / count,
                "derivatives": float(self.derivatives),
                "maps": float(self.maps),
                "queries": float(self.queries),
            },
            stopped=self.stopped,
            provenance={},
        )
