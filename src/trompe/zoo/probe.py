"""Making sure that a module behaves as a classifier before any work is put into it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import ModelError, UsageError
from trompe.model_output import Logarithm, Logits, find_logits, follow
from trompe.output_meaning import far_outputs, found_meaning, meaning_of_logarithm
from trompe.outputs import Outputs, declare
from trompe.types import InputSpace
from trompe.zoo.record import ModelRecord

log = logging.getLogger("trompe")


def input_channels(model: nn.Module) -> int | None:
    """How many channels the first convolution takes; ``None`` if there is none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return None


def input_space(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    record: ModelRecord,
    found: int | None,
) -> InputSpace:
    """The normalisation asked for, or the record's, with as many channels as the model takes.

    Args:
        mean: per channel, or one number for all.
        std: likewise.
        record: of the model.
        found: how many channels its first convolution takes, if that is known.

    Raises:
        UsageError: if there are more or fewer numbers than channels.
    """
    given = [values for values in (mean, std) if values is not None]
    channels = found or max([len(values) for values in given], default=len(record.mean))
    own = len(record.mean) == channels
    if not own and not given:
        log.warning(
            "%s takes %d channel%s: images are converted to %s; without --mean and --std their "
            "pixels 0..1 are not normalised",
            record.name,
            channels,
            "" if channels == 1 else "s",
            "grey" if channels == 1 else "so many",
        )
    return InputSpace(
        _per_channel("mean", mean, record.mean if own else (0.0,), channels),
        _per_channel("std", std, record.std if own else (1.0,), channels),
    )


def _per_channel(
    name: str, given: Sequence[float] | None, default: Sequence[float], channels: int
) -> tuple[float, ...]:
    """One number per channel: those given, the only one repeated, or equal ones for grey."""
    values = tuple(default if given is None else given)
    if len(values) == 1 or (channels == 1 and len(set(values)) == 1):
        return values[:1] * channels
    if len(values) != channels:
        raise UsageError(
            f"{name} has {len(values)} numbers, the model takes {channels} "
            f"channel{'s' * (channels != 1)}: give one each, or one for all"
        )
    return values


def ready_model(
    model: nn.Module,
    space: InputSpace,
    size: int,
    device: torch.device,
    name: str,
    outputs: Outputs | None = None,
) -> tuple[nn.Module, int]:
    """Try a model on two random images, and find or note what its outputs mean.

    Args:
        model: in evaluation mode, on ``device``.
        space: its normalisation.
        size: height and width of its input.
        device: where it is.
        name: what the user calls it.
        outputs: what they mean; ``None`` to find it.

    Returns:
        A model that returns logits or values [B, K], whose meaning is declared, and K.

    Raises:
        ModelError: if it fails, or does not return finite numbers [B, K] that can mean so.
    """
    noise = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, len(space.mean), size, size, generator=noise)
    x = space.from_pixels(pixels).to(device)
    given = x.clone()  # which the model may write to
    with torch.no_grad():
        out = _ran(model, given, name)
    try:
        path, count = find_logits(out, 2)
    except ModelError as error:
        raise ModelError(f"model '{name}': {error}") from error
    logits = follow(out, path)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            f"model '{name}' returns NaN or infinity on a random image: check its weights"
        )
    if path or logits.dim() != 2 or logits.dtype != x.dtype or given._version:
        model = Logits(model, path, count)
    return _with_meaning(model, x, outputs, count, name), count


def _ran(model: nn.Module, x: Tensor, name: str) -> Any:
    """What a model returns for images [2, C, H, W].

    Raises:
        ModelError: if it fails.
    """
    try:
        return model(x)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the model is the user's: anything can happen
        reason = " ".join(str(error).split()) or type(error).__name__
        way_out = "give its input size with --size"
        wanted = input_channels(model)
        if wanted not in (None, x.shape[1]):
            way_out = f"it takes {wanted} channels: give --mean and --std, a number for each"
        raise ModelError(
            f"model '{name}' fails on images of shape {tuple(x.shape)} ({reason}): {way_out}"
        ) from error


def _with_meaning(
    model: nn.Module, x: Tensor, told: Outputs | None, count: int, name: str
) -> nn.Module:
    """The model with the meaning of its outputs declared; the logarithm of probabilities."""
    with torch.enable_grad():  # the last operations tell, of which the graph knows
        out = _ran(model, x.clone().requires_grad_().clone(), name)
        found = found_meaning(out, lambda: far_outputs(model, x.clone()))
    meant = told or found.meaning
    try:
        meant.check(count)
    except UsageError as error:
        raise ModelError(f"model '{name}': {error}") from error
    probable = found.meaning.meaning == "probabilities"
    if meant.meaning == "probabilities" and not found.within:
        raise ModelError(
            f"model '{name}' returns no probabilities: some of its numbers are not within 0..1; "
            "its outputs are classes, labels, binary or a value"
        )
    if probable and meant.meaning in ("binary", "labels"):
        raise ModelError(
            f"model '{name}' returns probabilities, no logits: give --outputs probabilities "
            "(outputs='probabilities'), whose logarithm is explained and kept in their place"
        )
    if meant.meaning == "probabilities":
        model = Logarithm(model, found.each, found.whole)
        meaning = meaning_of_logarithm(count, found.each)
        if told is None:
            log.warning(
                "%s returns probabilities: what follows is about their logarithm, taken as logits "
                "of %s (--outputs probabilities); numbers that only look so are --outputs value",
                name,
                {"binary": "a yes-or-no decision"}.get(meaning, meaning),
            )
        meant = Outputs(meaning, meant.threshold, meant.tolerance)
    elif told is None and meant.meaning == "binary":
        log.warning(
            "%s has one output: taken as the logit of a yes-or-no decision (--outputs binary); "
            "a regression is --outputs value",
            name,
        )
    elif told is None and meant.meaning == "value":
        log.warning(
            "%s has one output, which never changes its sign: taken as a number (--outputs value), "
            "not as the logit of a yes-or-no decision; a probability is --outputs probabilities",
            name,
        )
    declare(model, meant)
    return model
