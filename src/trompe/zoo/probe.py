"""Making sure that a module behaves as a classifier before any work is put into it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import ModelError, UsageError
from trompe.types import InputSpace
from trompe.zoo.record import ModelRecord

log = logging.getLogger("trompe")


class Logits(nn.Module):
    """A model whose output object carries the logits, as those of Hugging Face do.

    Args:
        model: returns an object with an attribute ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, K] of images [B, C, H, W]."""
        logits: Tensor = self.model(x).logits
        return logits


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
    """One number per channel: those given, the only one repeated, or equal ones as one."""
    values = tuple(default if given is None else given)
    if len(set(values)) == 1:
        return values[:1] * channels
    if len(values) != channels:
        raise UsageError(
            f"{name} has {len(values)} numbers, the model takes {channels} "
            f"channel{'s' * (channels != 1)}: give one each, or one for all"
        )
    return values


def as_classifier(
    model: nn.Module, space: InputSpace, size: int, device: torch.device, name: str
) -> tuple[nn.Module, int]:
    """Try a model on two random images.

    Args:
        model: in evaluation mode, on ``device``.
        space: its normalisation.
        size: height and width of its input.
        device: where it is.
        name: what the user calls it.

    Returns:
        The model, wrapped if its output is an object with ``logits``, and its number of classes.

    Raises:
        ModelError: if it fails or does not return finite logits [B, K].
    """
    noise = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, len(space.mean), size, size, generator=noise)
    x = space.from_pixels(pixels).to(device)
    try:
        with torch.no_grad():
            out: Any = model(x)
    except Exception as error:  # the model is the user's: anything can happen
        reason = " ".join(str(error).split()) or type(error).__name__
        way_out = "give its input size with --size"
        wanted = input_channels(model)
        if wanted not in (None, x.shape[1]):
            way_out = f"it takes {wanted} channels: give --mean and --std, a number for each"
        raise ModelError(
            f"model '{name}' fails on images of shape {tuple(x.shape)} ({reason}): {way_out}"
        ) from error
    if not isinstance(out, Tensor) and isinstance(getattr(out, "logits", None), Tensor):
        model, out = Logits(model), out.logits
    if not isinstance(out, Tensor):
        raise ModelError(
            f"model '{name}' returns a {type(out).__name__}: a classifier returns a tensor of "
            "logits [B, K]"
        )
    if out.dim() != 2 or out.shape[0] != 2 or not out.is_floating_point():
        raise ModelError(
            f"model '{name}' returns the shape {tuple(out.shape)} ({out.dtype}) for 2 images: a "
            "classifier returns floating point logits [2, K]"
        )
    if out.shape[1] < 2:
        raise ModelError(f"model '{name}' has one output only: a classifier has two or more")
    if not bool(torch.isfinite(out).all()):
        raise ModelError(
            f"model '{name}' returns NaN or infinity on a random image: check its weights"
        )
    return model, out.shape[1]
