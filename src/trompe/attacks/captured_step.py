"""Which way the steps of an attack run: eagerly or captured, chosen by measurement."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from trompe.attacks.batches import out_of_memory
from trompe.attacks.differentiate import Derivative, Differentiate
from trompe.engine.capture import Function, agree, capture
from trompe.engine.fingerprint import layout
from trompe.engine.runners import RUNNERS
from trompe.errors import CaptureError

log = logging.getLogger("trompe")

EAGER = "eager"
# What is tried takes the time of about ten steps and saves 5 to 50 % of each that follows.
_WORTH = 60
_TRIALS = 3
_KEPT = 8

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Inputs = tuple[Tensor, ...]


@dataclass
class _Kind:
    """Captured steps of one kind, and which of them, or the eager one, was the fastest."""

    functions: dict[str, Function] = field(default_factory=dict)
    choice: str | None = None


_kinds: Any = WeakIdKeyDictionary()  # per model: its kinds of steps by their keys


class CapturedStep:
    """Runs the differentiable part of a step, step after step.

    A captured step is kept with its model, and used for other images of the same shape, type and
    device as long as weights, method and settings are the same. Before an attack uses it, its
    numbers are compared with those of the step as it is written: of other images where it is new,
    of the attack's own where it was kept.

    Args:
        step: what is run.
        how: ``never``: eagerly. ``auto``: eagerly, or as a graph or CUDA graph where that is
            faster and enough steps are to come to repay the capture; these give the same numbers,
            so that what was chosen has no influence on the result. Or one of ``RUNNERS``.
        owner: the model with which captured steps are kept, and forgotten.
        count: of the steps to come.
    """

    def __init__(self, step: Differentiate, how: str, owner: nn.Module, count: int) -> None:
        self.step = step
        self.how = how
        self.ran = EAGER
        self._owner = owner
        self._left = count
        self._done = 0
        self._constants = tuple(tensor.detach() for tensor in step.constants)
        self._kind: _Kind | None = None
        self._waiting: list[str] = []  # the ways of the next steps, to be timed
        self._times: dict[str, list[float]] = {}

    def __call__(self, x: Tensor, beta: float | None, strictness: float = 1.0) -> Derivative:
        """Differentiate at ``x``."""
        self._done += 1
        if self.how == "never" or self.step.draws:
            return self.step.redrawn(self._done)(x, beta, strictness, *self._constants)
        numbers = (
            torch.full((), number, dtype=x.dtype, device=x.device)
            for number in (1.0 if beta is None else beta, strictness)
        )
        inputs = (x.detach(), *numbers, *self._constants)
        if self._kind is None:
            self._begin(inputs)
        self._left -= 1
        if not self._waiting:
            return self._run(self.ran, inputs)
        seen = self._timed(self._waiting.pop(0), inputs)
        if not self._waiting:
            self._next(inputs)
        return seen

    def _eager(self, x: Tensor, beta: Tensor, strictness: Tensor, *constants: Tensor) -> Derivative:
        return self.step(x, None if self.step.surrogate is None else beta, strictness, *constants)

    def _run(self, way: str, inputs: Inputs) -> Derivative:
        if way == EAGER or self._kind is None:
            return self._eager(*inputs)
        return Derivative(*self._kind.functions[way](*inputs))

    def _timed(self, way: str, inputs: Inputs) -> Derivative:
        _synchronised(inputs)
        start = time.perf_counter()
        seen = self._run(way, inputs)
        _synchronised(inputs)
        self._times.setdefault(way, []).append(time.perf_counter() - start)
        return seen

    def _begin(self, inputs: Inputs) -> None:
        """Take what is known of such steps, or see about it."""
        self._kind = self._kept(inputs)
        wanted = self.how if self.how != "auto" else self._kind.choice
        if wanted in self._kind.functions:
            if agree(self._run(wanted, inputs), self._eager(*inputs)):
                self.ran = wanted
                return
            log.debug("a captured step is out of date: captured anew")
            self._kind.functions.clear()
            self._kind.choice = None
        if self.how != "auto":
            self._add((self.how,), inputs)
            self.ran = self.how
        elif self._kind.choice is None and self._left >= _WORTH and not self._watched():
            self._kind.functions.clear()  # what was asked for by name has not been timed
            self._waiting = [EAGER]  # caches are filled, and it shows errors of the eager way

    def _kept(self, inputs: Inputs) -> _Kind:
        """The entry of such steps; one of this attack alone if they cannot be told apart."""
        key = self.step.key
        if key is None:
            return _Kind()
        kinds: dict[Hashable, _Kind] = _kinds.setdefault(self._owner, {})
        key = (key, tuple(layout(tensor) for tensor in inputs))
        if key not in kinds:
            while len(kinds) >= _KEPT:
                del kinds[next(iter(kinds))]
            kinds[key] = _Kind()
        return kinds[key]

    def _watched(self) -> bool:
        """Whether somebody's hooks would miss steps that do not run the model."""
        for module in self.step.model.modules():
            if any(getattr(module, name) for name in _HOOKS):
                log.debug("steps are not captured: the model has hooks, which would not run")
                return True
        return False

    def _next(self, inputs: Inputs) -> None:
        """What was waiting has been timed: capture and time on, or choose."""
        assert self._kind is not None
        if not self._kind.functions:
            ways = ("cuda-graph", "graph") if inputs[0].is_cuda else ("graph",)
            self._times.clear()
            try:
                self._add(ways, inputs)
            except CaptureError as error:
                self._kind.choice = EAGER
                log.info("the steps run eagerly: %s", error)
                return
            self._waiting = [EAGER, *self._kind.functions] * _TRIALS
            return
        medians = {way: statistics.median(times) for way, times in self._times.items()}
        self.ran = self._kind.choice = min(medians, key=lambda way: medians[way])
        self._kind.functions = {k: f for k, f in self._kind.functions.items() if k == self.ran}
        log.debug("the steps run as %s: seconds per step %s", self.ran, medians)

    def _add(self, ways: Sequence[str], inputs: Inputs) -> None:
        """Capture the step and check its numbers; ways that fail are left out if one does not.

        Raises:
            CaptureError: if none is left.
        """
        assert self._kind is not None
        # Other images, another beta: nothing of the recorded ones may have become a constant. Run
        # before recording: what is derived from weights alone is derived once.
        other = (inputs[0].flip(-1), 2 * inputs[1], inputs[2] / 2, *inputs[3:])
        expected = self._eager(*other)
        failure: CaptureError | None = None
        try:
            graph = capture(self._eager, inputs)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise CaptureError(_message(_first_line(error))) from error
        self._forget_launched()
        for way in ways:
            try:
                function = RUNNERS[way](graph, inputs)
                if not agree(function(*other), expected):
                    raise CaptureError("the captured step gives other numbers")
                self._kind.functions[way] = function
            except (CaptureError, MemoryError, RuntimeError) as error:
                if not isinstance(error, CaptureError) and not (
                    self.how == "auto" and out_of_memory(error)
                ):
                    raise
                failure = CaptureError(_message(_first_line(error)))
                log.debug("%s", failure)
        # One of another way that was kept before does not stand in for those asked for.
        if failure is not None and not any(way in self._kind.functions for way in ways):
            raise failure

    def _forget_launched(self) -> None:
        """Each CUDA graph holds the memory of a whole step: one per model is kept, the last."""
        for kind in _kinds.get(self._owner, {}).values():
            if kind.functions.pop("cuda-graph", None) is not None:
                kind.choice = None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, CaptureError) else f"{type(error).__name__}: {lines[0]}"


def _message(reason: str) -> str:
    return f"the step cannot be captured: {reason}; set capture (--capture) to never"


def _synchronised(inputs: Inputs) -> None:
    if inputs[0].is_cuda:
        torch.cuda.synchronize(inputs[0].device)
