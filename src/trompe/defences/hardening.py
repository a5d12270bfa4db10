"""Train a network so that its explanations are harder to move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trompe.defences.base import Defence, defences
from trompe.engine import smooth
from trompe.errors import UsageError
from trompe.in_brief import InBrief
from trompe.input_space import InputSpace
from trompe.training import Batch, Epoch, Schedule, fit
from trompe.training.fit import Batches
from trompe.types import LoadedModel, Progress


@dataclass(frozen=True, repr=False)
class HardenedModel(InBrief):
    """A hardened network.

    Args:
        model: To be used: in evaluation mode, without gradients; with softplus in place of its
            kinks where the defence has a ``beta``.
        network: The same weights without softplus: what is saved.
        history: One entry per epoch.
        card: What was done, ready for JSON.
    """

    model: nn.Module
    network: nn.Module
    history: tuple[Epoch, ...]
    card: dict[str, Any]


def harden(
    model: Any,
    batches: Batches,
    *,
    defence: str | Defence = "lga",
    epochs: int = 3,
    rate: float = 3e-4,
    decay: float = 0.0,
    seed: int = 0,
    held_out: Batches | None = None,
    input_space: InputSpace | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> HardenedModel:
    """Fine-tune a copy of a classifier with a defence of its explanations.

    The copy stays in evaluation mode: batch norms keep their statistics, dropout is idle. Whether
    the explanations are harder to move afterwards is for ``trompe.auto_attack`` to say, not for the
    defence's own loss.

    Args:
        model: Any classifier [B, ...] -> [B, K], or a ``LoadedModel``; not changed.
        batches: (images, classes) pairs, normalised, iterated once per epoch: a list, a
            ``DataLoader``, ``trompe.training.read_labelled``.
        defence: A name (``trompe.defences.defences.names()``) or an object.
        epochs: How often all batches are seen.
        rate: The learning rate of AdamW in the beginning; it falls as a cosine to nothing.
        decay: AdamW's weight decay.
        seed: Of all random numbers.
        held_out: Batches never trained on: the best epoch is that of the least total loss there;
            without any it is the last.
        input_space: The model's normalisation; a ``LoadedModel`` brings its own, ImageNet's if not
            given.
        checkpoint: A file kept after every epoch; the same call goes on from there.
        progress: Called after every batch.
        options: Of the defence, such as ``weight``, if it is named.

    Returns:
        The hardened model; use ``.model``.

    Raises:
        UsageError: If a name, an option or a number is wrong, there is no batch, or the loss is no
            longer finite.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> batches = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))]
        >>> found = trompe.harden(net, batches, defence="noise", sigma=0.1, epochs=1)
        >>> found.card["defence"], found.card["options"]["sigma"]
        ('noise', 0.1)
    """
    chosen: Defence = defences.make(defence, options) if isinstance(defence, str) else defence
    if options and chosen is defence:
        raise UsageError(f"'{next(iter(options))}' is an option of a defence that is named only")
    space, network = input_space, model
    if isinstance(model, LoadedModel):
        space, network = input_space or model.input_space, model.model
    if not isinstance(network, nn.Module):
        raise UsageError(f"a module is needed to be trained, not {type(network).__name__}")
    schedule = Schedule(epochs=epochs, rate=rate, decay=decay, seed=seed)
    fitted = fit(
        network,
        batches,
        _objective(chosen),
        space=space or InputSpace(),
        schedule=schedule,
        held_out=held_out,
        checkpoint=checkpoint,
        key={"defence": repr(chosen)},
        progress=progress,
    )
    used = fitted.model if chosen.beta is None else smooth(fitted.model, beta=chosen.beta)
    card = {
        "defence": defences.name_of(chosen),
        "source": chosen.source,
        "options": dataclasses.asdict(chosen),
        "schedule": dataclasses.asdict(schedule),
        "best_epoch": fitted.best,
        "best_by": "the last epoch" if held_out is None else "the least held-out loss",
        "history": [dataclasses.asdict(one) for one in fitted.history],
    }
    return HardenedModel(used, fitted.model, fitted.history, card)


def _objective(defence: Defence) -> Callable[[nn.Module, Batch], dict[str, Tensor]]:
    """The defence's loss of the network as it is to be used."""

    def terms(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if defence.beta is None:
            return defence(model, batch)
        return defence(smooth(model, beta=defence.beta), batch)

    return terms
