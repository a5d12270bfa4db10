"""Making sure that a module behaves as a classifier before any work is put into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import ModelError
from trompe.types import InputSpace


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
