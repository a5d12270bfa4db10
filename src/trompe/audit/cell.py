"""One batch of cells: attack, control, measure. Nothing here reads or writes a file of the run."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.attacks import manipulate
from trompe.attacks.objectives import takes_target
from trompe.audit.attack_parts import AttackParts, attack_parts
from trompe.audit.batches import Cell, Pixels
from trompe.audit.judgement import Judge, flags_of, kept_arrays, metrics_of
from trompe.audit.settings import Settings
from trompe.engine import frozen
from trompe.engine.function_check import try_function
from trompe.errors import ModelError, TrompeError
from trompe.explain import Method
from trompe.geometry.smoothed_method import Smoothing, make_method
from trompe.interruption import whole
from trompe.metrics.attack import Outcome
from trompe.said import reason
from trompe.types import AttackResult, LoadedModel, Progress, heatmap

log = logging.getLogger("trompe")


@dataclass(frozen=True)
class Finding:
    """What came of a cell: tensors, numbers and flags; or why it failed.

    Args:
        cell: its number.
        message: why it failed.
        x: the normalised image [1, C, H, W].
        target_x: the normalised image whose map was the target.
        arrays: everything else that is kept of it.
        values: metrics by name.
        flags: what makes it doubtful.
    """

    cell: int
    message: str | None = None
    x: Tensor | None = None
    target_x: Tensor | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    flags: Sequence[str] = ()


def unusable_methods(settings: Settings, loaded: LoadedModel) -> dict[tuple[str, str], TrompeError]:
    """The methods and smoothings that cannot be made for a model, and why."""
    found = {}
    for method in settings.methods:
        for words in settings.smoothings:
            smoothing = Smoothing.parse(words)
            try:
                make_method(method, loaded, smoothing=smoothing, patterns=settings.patterns)
            except TrompeError as error:
                found[method, words] = error
    return found


def refuse_unfit(loaded: LoadedModel) -> None:
    """Refuse a model of which no cell can be done, by two random images.

    Raises:
        ModelError: if it is no function of one image, or has no derivative by it.
    """
    place = next(loaded.model.parameters(), torch.empty(0)).device
    shape = (1, len(loaded.input_space.mean), loaded.size, loaded.size)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    tried = try_function(loaded.model, loaded.input_space.from_pixels(pixels).to(place))
    if tried.undifferentiable:
        raise ModelError(tried.undifferentiable)


class Worker:
    """Works on the batches of one model, method, smoothing and preset.

    It holds all it needs but the images, so that it can be sent to another machine.

    Args:
        settings: of the run.
        loaded: the model.
        kind: method, smoothing and preset.
        progress: called after every step.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedModel,
        kind: tuple[str, str, str],
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.loaded, self.progress = settings, loaded, progress
        method, words, preset = kind
        self.smoothing = Smoothing.parse(words)
        self.explainer: Method | None = None
        self.parts: AttackParts | None = None
        self.problem: str | None = None
        try:
            self.explainer = make_method(
                method,
                loaded,
                smoothing=self.smoothing,
                patterns=settings.patterns,
                seed=settings.seed,
                chunk=settings.chunk,
            )
            self.parts = self.prepared(preset, self.explainer)
        except Exception as error:  # not the run's fault but that of all cells of this kind
            self.problem = reason(error)
        self.place = next(loaded.model.parameters(), torch.empty(0)).device

    def prepared(self, preset: str, explainer: Method) -> AttackParts | None:
        """The parts of the attack, made once for all batches."""
        return attack_parts(self.settings, preset, explainer, self.loaded.size)

    def move(self, place: torch.device) -> None:
        """Compute on another device from now on."""
        self.loaded = dataclasses.replace(self.loaded, model=self.loaded.model.to(place))
        self.place = place

    def batch(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        """Attack some cells at once; if that fails one by one, and say which failed and why.

        Args:
            cells: to be attacked.
            pixels: of their images, or why an image cannot be had.
        """
        findings, able = [], []
        for cell in cells:
            wrong = [
                found for i in (cell.image, cell.target) if isinstance(found := pixels[i], str)
            ]
            if problem := self.problem or next(iter(wrong), None):
                findings.append(Finding(cell.id, message=problem))
            else:
                able.append(cell)
        return findings + (self._tried(able, pixels) if able else [])

    def _tried(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        try:
            return self._attacked(cells, pixels)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the model's code may do anything, end the program too
            if len(cells) == 1:
                log.info("cell %d failed: %s", cells[0].id, error)
                return [Finding(cells[0].id, message=reason(error))]
        return [finding for cell in cells for finding in self._tried([cell], pixels)]

    def _images(self, numbers: Sequence[int], pixels: Pixels) -> Tensor:
        stacked = torch.stack([torch.as_tensor(pixels[i]) for i in numbers])
        return self.loaded.input_space.from_pixels(stacked).to(self.place)

    def _attacked(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        began = time.perf_counter()
        explainer, parts = self.explainer, self.parts
        assert explainer is not None, "batch() sees to it"
        assert parts is not None, "batch() sees to it"
        x = self._images([cell.image for cell in cells], pixels)
        aims = self._images([cell.target for cell in cells], pixels)
        model = frozen(self.loaded.model)
        aim = None
        if takes_target(parts.objective):
            with torch.no_grad():
                aim = heatmap(explainer(model, aims, model(aims).argmax(dim=1)))
        result = whole(
            manipulate(
                self.loaded.model,
                x,
                aim,
                explainer=explainer,
                input_space=self.loaded.input_space,
                preset=parts.preset,
                objective=parts.objective,
                iterations=self.settings.iterations,
                progress=self.progress,
            )
        )
        seconds = (time.perf_counter() - began) / len(cells)
        judge = Judge(
            self.settings, self.loaded, explainer, parts.objective, self.smoothing is None
        )
        extra = judge.with_model(Outcome.of(result), cells)
        return [
            self._finding(
                cell,
                index=i,
                result=result,
                target_x=aims[i : i + 1].cpu(),
                extra={name: float(column[i]) for name, column in extra.items()}
                | {"seconds": seconds, "iterations": float(result.iterations)},
            )
            for i, cell in enumerate(cells)
        ]

    def _finding(
        self,
        cell: Cell,
        *,
        index: int,
        result: AttackResult,
        target_x: Tensor,
        extra: Mapping[str, float],
    ) -> Finding:
        x = result.x[index : index + 1].clone()
        arrays = kept_arrays(result, index)
        values = {**metrics_of(x, arrays, self.loaded.input_space, self.loaded.outputs), **extra}
        return Finding(
            cell.id,
            x=x,
            target_x=target_x.clone(),
            arrays=arrays,
            values=values,
            flags=flags_of(values, arrays),
        )
