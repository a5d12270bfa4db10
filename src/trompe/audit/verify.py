"""Recomputing the cells of a run from what it kept: numbers from arrays, arrays by the model."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks import Unlike
from trompe.attacks.constant_map import is_constant
from trompe.attacks.constraints import Constraint
from trompe.attacks.objectives import takes_target
from trompe.attacks.observation import observe
from trompe.audit.attack_parts import attack_parts
from trompe.audit.batches import CERTIFICATE, WORST_CASE, Cell
from trompe.audit.faithful import faithful_names
from trompe.audit.judgement import Judge, flags_of, metrics_of, outcome_of
from trompe.audit.provenance import code_checksums, input_space, outputs_meaning
from trompe.audit.results import Row, Run
from trompe.audit.tolerances import MAP_TOLERANCE, ROUNDING, TOLERANCE, difference, same
from trompe.audit.verify_certified import drawn_problems, kept_problems
from trompe.audit.worst_case import NOTED, ball, search_problems, strange
from trompe.engine import frozen
from trompe.errors import TrompeError
from trompe.geometry.smoothed_method import make_method
from trompe.kept import tensors_checksum
from trompe.metrics.attack import Outcome
from trompe.outputs import Outputs
from trompe.types import LoadedModel, relative

#: How far outside the constraint a pixel may lie, pixel units: projections are rounded.
OUTSIDE = 1e-4


@dataclass(frozen=True)
class Checked:
    """What came of checking one cell.

    Args:
        row: the cell.
        problems: what does not agree, in words; empty if all does.
    """

    row: Row
    problems: tuple[str, ...]


def _searches(row: Row) -> bool:
    """Whether a cell is a search for the worst case."""
    return row.preset == WORST_CASE


def _others(row: Row, found: Mapping[str, Tensor]) -> Iterator[str]:
    """The metrics of a cell, [1] each, that the model gives otherwise."""
    for name, column in found.items():
        if not same(float(column[0]), row.values.get(name), TOLERANCE):
            kept = row.values.get(name, math.nan)
            yield f"{name} is {float(column[0]):.6g}, not {kept:.6g}"


class Verifier:
    """Checks the cells of a run.

    A model that is a function of somebody's is not made again unless it is trusted: that would
    run code which the run names.

    Args:
        run: to be checked.
        models: also run the models again on the images kept; else only what follows from the arrays
            is checked.
        trusted: names of functions that may be run, or ``None`` for all that the run names.
        device: where to compute.
    """

    def __init__(
        self,
        run: Run,
        *,
        models: bool = True,
        trusted: Collection[str] | None = (),
        device: str = "cpu",
    ) -> None:
        self.run, self.models, self.trusted, self.device = run, models, trusted, device
        self._loaded: tuple[str, LoadedModel, tuple[str, ...]] | None = None

    def distrusted(self) -> list[str]:
        """The models that are not made again, because they are code that nobody vouched for."""
        return [m.key for m in self.run.settings.models if not self._allowed(m.key)]

    def _allowed(self, name: str) -> bool:
        model = self.run.model(name)
        return not model.is_code or self.trusted is None or model.name in self.trusted

    def loaded(self, name: str) -> LoadedModel:
        """A model, which must be one that may be run."""
        return self._load(name)[0]

    def _load(self, name: str) -> tuple[LoadedModel, tuple[str, ...]]:
        """A model, and how it differs from the one that was attacked."""
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None
            loaded, known = self.run.model(name).load(self.device), self.run.facts(name)
            wrong = []
            if loaded.input_space != input_space(known):
                wrong.append(f"the normalisation of {name} is another one")
            if loaded.outputs != (outputs_meaning(known) or Outputs()):
                wrong.append(f"the outputs of {name} mean something else")
            if tensors_checksum(loaded.model) != known["weights_of"].get(name):
                wrong.append(f"the weights of {name} are others")
            spec = self.run.model(name)
            if spec.is_code and code_checksums(spec.name) != known["code_of"]:
                wrong.append(f"the code of {name} is another")
            recorded, now = (
                self.run.record.get("code_of_parts", {}),
                self.run.settings.code_of_parts(),
            )
            for module in sorted(now.keys() | recorded.keys()):
                if now.get(module) != recorded.get(module):
                    wrong.append(f"the code of {module} is another")
            self._loaded = (name, loaded, tuple(wrong))
        return self._loaded[1], self._loaded[2]

    def check(self, row: Row) -> Checked:
        """Check one finished cell."""
        try:
            arrays = self.run.arrays(row)
            problems = [*self._kept(row, arrays)]
            if self.models and self._allowed(row.model):
                loaded, wrong = self._load(row.model)
                problems += [*wrong, *self._anew(row, arrays, loaded)]
        except TrompeError as error:
            problems = [str(error)]
        except (KeyError, IndexError, RuntimeError, ValueError, TypeError) as error:
            # Arrays of other names, shapes or types than were ever written.
            problems = [f"its arrays cannot be used ({type(error).__name__}: {error})"]
        return Checked(row, tuple(problems))

    def _kept(self, row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
        """What does not follow from the arrays of a cell, without its model."""
        if row.preset == CERTIFICATE:
            yield from kept_problems(self.run, row, arrays)
            return
        yield from (f"it has an array '{name}' too much" for name in strange(row, arrays))
        yield from self._numbers(row, arrays)
        yield from search_problems(row, arrays) if _searches(row) else self._flags(row, arrays)

    def _numbers(self, row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
        """What the arrays say of the metrics that follow from them."""
        known = self.run.facts(row.model)
        space, outputs = input_space(known), outputs_meaning(known)
        found = metrics_of(arrays["x"], arrays, space, outputs)
        names = self.run.metric_names(row.id)
        expected = {*found, *self._noted(row, names)}
        if names != expected:
            wrong = ", ".join(sorted(names ^ expected)[:3])
            yield f"it has other metrics than it must have ({wrong})"
        for name, value in found.items():
            if not same(value, row.values.get(name), ROUNDING):
                yield f"{name} is {value:.6g}, not {row.values.get(name, math.nan):.6g}"
        if not _searches(row):
            yield from self._steps(row, arrays)

    def _noted(self, row: Row, names: set[str]) -> set[str]:
        """The metrics that a cell has besides those that follow from its arrays."""
        if _searches(row):
            return set(NOTED)
        expected = {"seconds", "iterations", "noise_target_pcc", "noise_original_pcc"}
        outputs = outputs_meaning(self.run.facts(row.model)) or Outputs()
        smoothed = row.smoothing is not None and row.smoothing.beta is not None
        expected |= faithful_names(self.run.settings, outputs, smoothed=smoothed)
        if not self.run.settings.usual_objective:
            expected |= {name for name in names if name.startswith("objective_")}
            expected |= {f"objective_{when}" for when in ("before", "after", "noise")}
        if row.smoothing is None:
            for beta in self.run.settings.recovery:
                expected |= {f"beta_{beta:g}_{k}_pcc" for k in ("target", "original", "same")}
        return expected

    def _steps(self, row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
        """What the arrays say of the number of steps."""
        steps = arrays.get("history_iteration")
        taken = None if steps is None else float(steps[-1]) + 1 if len(steps) else 0.0
        if taken is not None and taken != row.values.get("iterations"):
            yield "the number of its iterations is not that of its history"
        asked = self.run.settings.iterations
        ended = asked is None or bool(arrays["not_finite"].any())
        # A map that depends on no image ends its attack before the first step.
        ended |= row.values.get("iterations") == 0 and row.values.get("image_linf") == 0
        if not ended and row.values.get("iterations") != asked:
            yield f"it has not the {asked} iterations of the settings"

    def _flags(self, row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
        undefined = dict.fromkeys(self.run.metric_names(row.id), math.nan)
        found = flags_of({**undefined, **row.values}, arrays)
        for flag in sorted(set(found) ^ set(row.flags)):
            yield f"the flag '{flag}' is {'missing' if flag in found else 'not what follows'}"

    def _anew(self, row: Row, arrays: dict[str, Tensor], loaded: LoadedModel) -> Iterator[str]:
        """What the model says of the images that were kept."""
        explainer = make_method(
            row.method,
            loaded,
            smoothing=row.smoothing,
            patterns=self.run.settings.patterns,
            seed=self.run.settings.seed,
            chunk=self.run.settings.chunk,
        )
        settings = self.run.settings
        if row.preset == CERTIFICATE:
            if settings.certification is not None:  # else _kept() has said that there must be none
                yield from drawn_problems(settings, loaded, explainer, row, arrays)
            return
        outcome = outcome_of(arrays["x"], arrays)
        cell = Cell(row.id, row.image_number, row.target_number)
        if _searches(row):
            yield from self._place(outcome, ball(), loaded)
            judge = Judge(settings, loaded, explainer, Unlike(), row.smoothing is None)
            yield from self._maps(arrays, loaded, judge)
            yield from _others(row, judge.control(outcome, judge.noisy(outcome, [cell])))
            return
        parts = attack_parts(settings, row.preset, explainer, arrays["x"].shape[-2])
        yield from self._place(outcome, parts.preset.constraint, loaded)
        judge = Judge(settings, loaded, explainer, parts.objective, row.smoothing is None)
        yield from self._maps(arrays, loaded, judge)
        if row.values.get("iterations") == 0:
            yield from self._no_steps(outcome, loaded, judge)
        found = judge.with_model(outcome, [cell])
        for name in self.run.metric_names(row.id):
            if name.startswith("objective_") and name not in found:
                yield f"{name} is nothing that the objective measures"
        yield from _others(row, found)

    def _no_steps(self, outcome: Outcome, loaded: LoadedModel, judge: Judge) -> Iterator[str]:
        """Whether an attack without a step is one of a map that no image could change."""
        asked = self.run.settings.iterations
        model, x = frozen(loaded.model), outcome.x.to(self.device)
        target = outcome.target_class.to(self.device)
        with torch.no_grad():
            before = observe(model, judge.explainer, x, target)
        if asked != 0 and not is_constant(model, judge.explainer, x, target, before):
            yield "it has not a single step although its map depends on the image"

    def _place(
        self, outcome: Outcome, constraint: Constraint, loaded: LoadedModel
    ) -> Iterator[str]:
        """Whether the manipulated image is one that the constraint allows."""
        away = constraint.violation(outcome.x_adv, outcome.x, loaded.input_space)
        if not float(away) <= OUTSIDE:
            name = type(constraint).__name__
            yield f"the manipulated image is {float(away):.2g} outside of {name}"

    def _aim(
        self, arrays: Mapping[str, Tensor], loaded: LoadedModel, judge: Judge
    ) -> Iterator[str]:
        """Whether an objective that makes its own aim made that which is kept."""
        outcome = outcome_of(arrays["x"], arrays)
        before = judge.seen(frozen(loaded.model), outcome.x, outcome.target_class)
        aim = judge.prepared(outcome, before).aim
        if aim is None or outcome.map_target is None:
            if aim is not outcome.map_target:
                yield "it has a map that is aimed at and must not, or must and has not"
        elif not difference(aim, outcome.map_target) <= MAP_TOLERANCE:
            yield "the map aimed at is not the one that the objective makes"

    def _maps(
        self, arrays: Mapping[str, Tensor], loaded: LoadedModel, judge: Judge
    ) -> Iterator[str]:
        model, explainer = frozen(loaded.model), judge.explainer
        winner = arrays["logits_original"].argmax(dim=1).to(self.device)
        images = {"original": arrays["x"], "adv": arrays["x_adv"]}
        if takes_target(judge.objective):
            images["target"] = arrays["target_x"]
        else:
            yield from self._aim(arrays, loaded, judge)
        for kind, image in images.items():
            x = image.to(self.device)
            with torch.no_grad():
                found = model(x)
                # What is aimed at explains the target image's own class.
                explained = found.argmax(dim=1) if kind == "target" else winner
                heat, logits = relative(explainer(model, x, explained)).cpu(), found.cpu()
            away = difference(heat, arrays[f"map_{kind}"])
            if not away <= MAP_TOLERANCE:
                yield f"the {kind} map differs by {away:.2g} of its maximum"
            if kind != "target" and not torch.allclose(
                logits, arrays[f"logits_{kind}"], rtol=TOLERANCE, atol=TOLERANCE
            ):
                yield f"the {kind} logits differ"

    def check_all(self) -> Iterator[Checked]:
        """Check every finished cell, in order."""
        for row in self.run.by_purpose:
            if row.message is None:
                yield self.check(row)
