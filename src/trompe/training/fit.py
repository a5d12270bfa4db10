"""The steps of a fine-tuning: seeded, kept after every epoch, gone on with where they stopped."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.input_space import InputSpace
from trompe.outputs import declared
from trompe.training.batch import Batch, Objective
from trompe.training.checkpoint import Checkpoint
from trompe.types import Progress

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images [B, ...], normalised, and classes [B]; iterated once per epoch."""


@dataclass(frozen=True)
class Schedule:
    """How the weights move: AdamW, its rate falling as a cosine to nothing.

    Args:
        epochs: How often all batches are seen.
        rate: The learning rate in the beginning.
        decay: Weight decay of the matrices and filters.
        seed: Of all random numbers.

    Raises:
        UsageError: If a number is out of range.
    """

    epochs: int = 3
    rate: float = 3e-4
    decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, not {self.epochs}")
        if not 0 < self.rate < math.inf or not 0 <= self.decay < math.inf:
            raise UsageError(
                f"rate must be positive and decay not negative, not {self.rate} and {self.decay}"
            )


@dataclass(frozen=True)
class Epoch:
    """What came of one epoch.

    Args:
        number: From 1.
        loss: The mean of all terms together, in training.
        terms: Each term's mean.
        held_out: The mean loss on the held-out batches; ``None`` without any.
        seconds: It took.
    """

    number: int
    loss: float
    terms: dict[str, float]
    held_out: float | None
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Args:
        model: In evaluation mode, without gradients.
        history: One entry per epoch.
        best: The epoch whose weights these are: of the least held-out loss, else the last.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    best: int


def check_trainable(model: nn.Module) -> None:
    """Whether a model can be trained at all.

    Raises:
        UsageError: If its outputs are known to be no classes, on whose labels all objectives rest.
    """
    meant = declared(model)
    if meant is not None and meant.meaning != "classes":
        raise UsageError(
            f"training is for models of two or more classes; these outputs are '{meant.meaning}'"
        )


def fit(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    space: InputSpace,
    schedule: Schedule | None = None,
    held_out: Batches | None = None,
    checkpoint: str | Path | None = None,
    key: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fine-tune a copy of a model on an objective.

    The copy runs in evaluation mode: batch norms keep their statistics and dropout is idle, so that
    it stays a function of one image, as explanations need it; all weights that float are trained,
    those of batch norms included. The caller's model does not change.

    Args:
        model: The classifier.
        batches: See ``Batches``; at least one. Where it has a method ``epoch(number)``, that gives
            the batches of each epoch; a shuffling ``DataLoader`` is seeded for each epoch.
        objective: The terms of the loss.
        space: The model's normalisation.
        schedule: How the weights move.
        held_out: Batches that are never trained on; the best epoch is that of the least loss there,
            and the last one without any.
        checkpoint: A file in which everything is kept after every epoch; a call with the same
            arguments goes on from there.
        key: What the checkpoint belongs to, by name, beside the model, the schedule and what
            ``batches.fingerprint()`` says, if there is such a method.
        progress: Called after every batch.

    Raises:
        UsageError: If there is no batch, the loss is no longer finite, or the outputs are known to
            be no classes, on whose labels all objectives rest.
    """
    check_trainable(model)
    schedule = schedule or Schedule()
    trained = copy.deepcopy(model).eval()
    weights = [p for p in trained.parameters() if p.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": schedule.decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=schedule.rate,
    )
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(Path(checkpoint), _belongs(key or {}, schedule, batches, held_out), model)
    history: list[Epoch] = []
    best = copy.deepcopy(trained.state_dict())
    least = math.inf
    if kept is not None and (found := kept.load(trained, optimizer)) is not None:
        history, best = [Epoch(**one) for one in found.history], found.best
        least = min((one.held_out for one in history if one.held_out is not None), default=math.inf)
    for number in range(len(history), schedule.epochs):
        entry = _epoch(trained, optimizer, batches, objective, space, schedule, number, progress)
        if held_out is not None:
            loss = _held_out(trained, held_out, objective, space, schedule.seed)
            entry = Epoch(**{**asdict(entry), "held_out": loss})
        if entry.held_out is None or entry.held_out <= least:
            least = math.inf if entry.held_out is None else entry.held_out
            best = copy.deepcopy(trained.state_dict())
        history.append(entry)
        if kept is not None:
            kept.save(trained, optimizer, [asdict(one) for one in history], best)
    trained.load_state_dict(best)
    losses = [math.inf if one.held_out is None else one.held_out for one in history]
    chosen = len(history) if held_out is None else 1 + losses.index(min(losses))
    for parameter in trained.parameters():  # scripted modules have no method for it
        parameter.requires_grad_(False)
    return Fitted(trained.eval(), tuple(history), chosen)


def _belongs(
    key: Mapping[str, str], schedule: Schedule, batches: Batches, held_out: Batches | None
) -> dict[str, str]:
    """Everything that a training depends on, beside the model, by name."""
    found = {**key, **{name: str(value) for name, value in asdict(schedule).items()}}
    several: tuple[tuple[str, Any], ...] = (("images", batches), ("held-out images", held_out))
    for name, given in several:
        if hasattr(given, "fingerprint"):
            found |= {f"{name}, {part}": text for part, text in given.fingerprint().items()}
    return found


def _given(batches: Any, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch."""
    if hasattr(batches, "epoch"):
        yield from batches.epoch(number)
    else:
        yield from batches


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    objective: Objective,
    space: InputSpace,
    schedule: Schedule,
    number: int,
    progress: Progress | None,
) -> Epoch:
    start, count, sums = time.monotonic(), 0, dict[str, float]()
    length = len(batches) if isinstance(batches, Sized) else 0
    seed = 7919 * number + schedule.seed
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the order of a shuffling DataLoader
        for index, (x, y) in enumerate(_given(batches, number)):
            done = (number + index / max(length, index + 1)) / schedule.epochs
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate * 0.5 * (1 + math.cos(math.pi * done))
            terms = objective(model, Batch(x.detach(), y, space, draw))
            loss = torch.stack(list(terms.values())).sum()
            if not bool(torch.isfinite(loss)):
                raise UsageError(
                    f"the loss is not finite in epoch {number + 1}: take a smaller rate or weight"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += 1
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.detach())
            if progress is not None:
                total = schedule.epochs * max(length, count)
                means = {name: value / count for name, value in sums.items()}
                progress(number * max(length, count) + count, total, means)
    if not count:
        raise UsageError("there is no batch to train with: give (images, classes) pairs")
    terms_mean = {name: value / count for name, value in sums.items()}
    total_mean = sum(terms_mean.values())
    return Epoch(number + 1, total_mean, terms_mean, None, time.monotonic() - start)


def _held_out(
    model: nn.Module, batches: Batches, objective: Objective, space: InputSpace, seed: int
) -> float:
    """The mean loss per batch, with the same random numbers every time."""
    draw, losses = torch.Generator().manual_seed(seed), []
    for x, y in _given(batches, 0):
        terms = objective(model, Batch(x.detach(), y, space, draw))
        losses.append(float(torch.stack(list(terms.values())).sum().detach()))
    if not losses:
        raise UsageError("there is no held-out batch: give (images, classes) pairs, or None")
    return sum(losses) / len(losses)
