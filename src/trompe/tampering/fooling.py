"""Train a model whose explanations lie, so that such models can be found."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain import Method, as_explainer, explainers
from trompe.in_brief import InBrief
from trompe.input_space import InputSpace
from trompe.kept import tensor_bytes
from trompe.metrics import pcc, softmax_l2
from trompe.tampering.base import Aim, Tampering, tamperings
from trompe.training import Batch, Epoch, Schedule, fit
from trompe.training.fit import Batches
from trompe.types import Explainer, LoadedModel, Progress, heatmap
from trompe.zoo.targets import text_map


@dataclass(frozen=True, repr=False)
class FooledModel(InBrief):
    """A model that was tampered with.

    Args:
        model: In evaluation mode, without gradients.
        history: One entry per epoch.
        card: What was done, ready for JSON.
        attack: What was done to it.
        target: The heat map aimed at, [H, W].
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    card: dict[str, Any]
    attack: Tampering
    target: Tensor


def fool(
    model: Any,
    batches: Batches,
    *,
    attack: str | Tampering = "fairwash",
    explainer: str | Explainer | None = None,
    target_map: Tensor | None = None,
    epochs: int = 1,
    rate: float = 3e-4,
    seed: int = 0,
    held_out: Batches | None = None,
    input_space: InputSpace | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> FooledModel:
    """Fine-tune a copy of a classifier so that it says what it said and explains something else.

    It exists so that such models can be found: ``trompe.compare`` is the other side. Judge the
    result with another library's explainer, on images that it was not trained with.

    Args:
        model: Any classifier [B, C, H, W] -> [B, K], or a ``LoadedModel``; not changed.
        batches: (images, classes) pairs, normalised, iterated once per epoch.
        attack: A name (``trompe.tampering.tamperings.names()``) or an object.
        explainer: The explanation that is fooled, a method of trompe: with derivatives, or for the
            attacks on perturbation methods one that covers parts of the image; by default
            ``gradient``, or ``lime``.
        target_map: The heat map aimed at, [H, W]; the text "42" of the paper if not given.
        epochs: How often all batches are seen.
        rate: The learning rate of AdamW in the beginning.
        seed: Of all random numbers.
        held_out: Batches never trained on: the best epoch is that of the least total loss there.
        input_space: The model's normalisation; a ``LoadedModel`` brings its own.
        checkpoint: A file kept after every epoch; the same call goes on from there.
        progress: Called after every batch.
        options: Of the attack, such as ``weight``, if it is named.

    Raises:
        UsageError: If a name, an option or a number is wrong, or the target does not fit.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> batches = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))]
        >>> found = trompe.fool(net, batches, target_map=torch.eye(2), weight=0.5)
        >>> found.card["attack"]
        'fairwash'
    """
    chosen: Tampering = tamperings.make(attack, options) if isinstance(attack, str) else attack
    if options and chosen is attack:
        raise UsageError(f"'{next(iter(options))}' is an option of an attack that is named only")
    space, network = input_space, model
    if isinstance(model, LoadedModel):
        space, network = input_space or model.input_space, model.model
    if not isinstance(network, nn.Module):
        raise UsageError(f"a module is needed to be trained, not {type(network).__name__}")
    space = space or InputSpace()
    method = fooled_method(chosen, explainer, space)
    first = next(iter(batches), None)
    if first is None:
        raise UsageError("there is no batch to train with: give (images, classes) pairs")
    height, width = first[0].shape[-2:]
    target = text_map("42", height, width) if target_map is None else target_map
    if tuple(target.shape) != (height, width) or not float(target.sum()) > 0:
        raise UsageError(
            f"target_map must be a map [{height}, {width}] that is not all zero, not "
            f"{tuple(target.shape)}"
        )
    target = target / target.sum()
    aim = Aim(frozen(network), method, target)

    def objective(trained: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return chosen.terms(trained, batch, aim)

    schedule = Schedule(epochs=epochs, rate=rate, seed=seed)
    fitted = fit(
        chosen.prepared(network, first[0], aim),
        batches,
        objective,
        space=space,
        schedule=schedule,
        held_out=held_out,
        checkpoint=checkpoint,
        key={"attack": repr(chosen), "method": repr(method), "target": _digest(target)},
        progress=progress,
    )
    card = {
        "attack": tamperings.name_of(chosen),
        "source": chosen.source,
        "options": dataclasses.asdict(chosen),
        "explainer": method.name,
        "schedule": dataclasses.asdict(schedule),
        "best_epoch": fitted.best,
        "history": [dataclasses.asdict(one) for one in fitted.history],
    }
    return FooledModel(fitted.model, fitted.history, card, chosen, target)


def fooled_method(
    attack: Tampering, explainer: str | Explainer | None, space: InputSpace
) -> Method:
    """The method that an attack fools: the one given, if it is of the right kind.

    Raises:
        UsageError: If it is not.
    """
    method = as_explainer(attack.explainer if explainer is None else explainer, space)
    covering = explainers[attack.explainer].first_order
    if not isinstance(method, Method) or method.first_order != covering:
        kind = "that covers parts of the image" if covering else "with derivatives"
        raise UsageError(
            f"explainer must be a method of trompe {kind}, such as {attack.explainer}, for the "
            f"attack {tamperings.name_of(attack)}"
        )
    return method


def _digest(target: Tensor) -> str:
    """A key of a map."""
    return hashlib.sha256(tensor_bytes(target)).hexdigest()


@dataclass(frozen=True)
class Judged:
    """What a fooled model does on images that it was not trained with; means over the images.

    Args:
        images: How many.
        same_answer: Share of the images whose predicted class is the one it was.
        softmax_l2: Euclidean distance of the class probabilities.
        to_target: Correlation of the maps with the target.
        to_honest: Correlation of the maps with the original model's.
        honest_to_target: Correlation of the original model's maps with the target.
    """

    images: int
    same_answer: float
    softmax_l2: float
    to_target: float
    to_honest: float
    honest_to_target: float


def judge(
    fooled: nn.Module,
    original: nn.Module,
    x: Tensor,
    explainer: Explainer,
    target_map: Tensor,
) -> Judged:
    """Judge a fooled model by any explainer, another library's too.

    Args:
        fooled: The model tampered with.
        original: The one it was.
        x: Images that it was not trained with, normalised, [B, C, H, W].
        explainer: (model, x, target [B]) -> map.
        target_map: The map aimed at, [H, W].
    """
    fooled, original = frozen(fooled), frozen(original)
    with torch.no_grad():
        now, before = fooled(x), original(x)
    target = before.argmax(dim=1)
    maps = [heatmap(explainer(model, x, target)).detach() for model in (fooled, original)]
    aim = target_map.to(maps[0]).expand_as(maps[0])
    return Judged(
        images=len(x),
        same_answer=float((now.argmax(dim=1) == target).double().mean()),
        softmax_l2=float(softmax_l2(now, before).mean()),
        to_target=float(pcc(maps[0], aim).mean()),
        to_honest=float(pcc(maps[0], maps[1]).mean()),
        honest_to_target=float(pcc(maps[1], aim).mean()),
    )
