"""The search for the map least like the original one, of a batch of images; and its checks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from trompe.attacks import LInfBall, Unlike
from trompe.audit.attack_parts import AttackParts
from trompe.audit.batches import WORST_CASE, Cell, Pixels
from trompe.audit.cell import Finding, Worker
from trompe.audit.judgement import Judge, metrics_of
from trompe.audit.leaderboard import EPSILON
from trompe.audit.results import Row
from trompe.engine import frozen
from trompe.explain import Method
from trompe.interruption import whole
from trompe.metrics.attack import Outcome
from trompe.robustness import MEANING, RobustnessResult, auto_attack

#: What is noted of a search besides the metrics that follow from its arrays.
NOTED = ("judged", "flipped", "seconds", "noise_target_pcc", "noise_original_pcc")

#: The arrays that are kept of a search, and of an attack as well.
KEPT = ("x_adv", "map_original", "map_adv", "logits_original", "logits_adv")
#: What else is kept of an attack, beside its history.
_OF_ATTACKS = {"map_target", "zero_gradient", "not_finite", "loss", "kinks_remain"}


def strange(row: Row, arrays: Mapping[str, Tensor]) -> list[str]:
    """The arrays of a finished cell that none has, by name."""
    known = {"x", "target_x", *KEPT}
    if row.preset != WORST_CASE:
        known |= _OF_ATTACKS | {name for name in arrays if name.startswith("history_")}
    return sorted(arrays.keys() - known)


def ball() -> LInfBall:
    """Where the search stays: the leaderboard's radius."""
    return LInfBall(EPSILON)


class Searcher(Worker):
    """Looks for the worst case of batches of one model, method and smoothing.

    It is ``trompe.auto_attack`` within the leaderboard's radius, with the run's budget. What is
    kept of an image is the image within the radius whose map, on the original network and with its
    answer kept, correlates least with the original one; the original itself where none is worse.
    """

    def prepared(self, preset: str, explainer: Method) -> AttackParts | None:
        """Nothing: the search has no parameters."""
        return None

    def _attacked(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        began = time.perf_counter()
        explainer, budget = self.explainer, self.settings.worst_case
        assert explainer is not None, "batch() sees to it"
        assert budget is not None, "else there are no such cells"
        x = self._images([cell.image for cell in cells], pixels)
        with torch.no_grad():
            target = frozen(self.loaded.model)(x).argmax(dim=1)
        seed = self.settings.seed * 1_009 + cells[0].image
        result = whole(
            auto_attack(
                self.loaded,
                x,
                explainer=explainer,
                radius=EPSILON,
                target=target,
                budget=budget,
                generator=torch.Generator().manual_seed(seed),
                progress=self.progress,
            )
        )
        judge = Judge(self.settings, self.loaded, explainer, Unlike(), self.smoothing is None)
        outcome = _outcome(judge, result)
        control = judge.control(outcome, judge.noisy(outcome, cells))
        seconds = (time.perf_counter() - began) / len(cells)
        return [
            self._found(cell, index, outcome, result, {"seconds": seconds}, control)
            for index, cell in enumerate(cells)
        ]

    def _found(
        self,
        cell: Cell,
        index: int,
        outcome: Outcome,
        result: RobustnessResult,
        noted: Mapping[str, float],
        control: Mapping[str, Tensor],
    ) -> Finding:
        tried = int(result.judged[index]) + int(result.flipped[index])
        if not tried:
            why = next(iter(result.failures.values()), "no image within the radius was looked at")
            return Finding(cell.id, message=f"no attack could run: {why}")
        one = slice(index, index + 1)
        x = outcome.x[one].clone()
        arrays = {name: getattr(outcome, name)[one].clone() for name in KEPT}
        counts = {"judged": float(result.judged[index]), "flipped": float(result.flipped[index])}
        return Finding(
            cell.id,
            x=x,
            target_x=x.clone(),
            arrays=arrays,
            values={
                **metrics_of(x, arrays, self.loaded.input_space, self.loaded.outputs),
                **{name: float(column[index]) for name, column in control.items()},
                **counts,
                **noted,
            },
            flags=result.flags[index],
        )


def _outcome(judge: Judge, result: RobustnessResult) -> Outcome:
    """The worst images as the original model sees them."""
    model = frozen(judge.loaded.model)
    worst = result.images["pcc"]
    before, after = (judge.seen(model, x, result.target) for x in (result.x, worst))
    return Outcome(
        x=result.x,
        x_adv=worst,
        target_class=result.target,
        map_original=before.map,
        map_target=None,
        map_adv=after.map,
        logits_original=before.logits,
        logits_adv=after.logits,
    )


def search_problems(row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
    """What a finished search says that cannot be, in words."""
    judged, flipped = (row.values.get(name, -1.0) for name in ("judged", "flipped"))
    if judged < 0 or flipped < 0 or judged + flipped < 1:
        yield "it has not looked at a single image"
    if judged != int(judged) or flipped != int(flipped):
        yield "it has looked at a part of an image"
    moved = not torch.equal(arrays["x_adv"], arrays["x"])
    if moved and judged < 1:
        yield "it found an image although it has judged none"
    if row.values.get("class_kept") != 1:
        yield "its worst image is of another class than the original one"
    if row.image_number != row.target_number:
        yield "it goes towards another image"
    for flag in sorted(set(row.flags) - MEANING.keys()):
        yield f"the flag '{flag}' is none that a search raises"
