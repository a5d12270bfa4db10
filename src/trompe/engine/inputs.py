"""Images and classes as callers give them, as tensors; else one line that says what to give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trompe.errors import UsageError


def as_images(x: Any, model: nn.Module) -> Tensor:
    """Images [B, ...] of floating point.

    NumPy arrays become tensors of the weights' type, on their device; one image without a batch
    becomes a batch of one, where the model's first convolution tells that it is one.

    Raises:
        UsageError: if they are something else, and what to give instead.
    """
    if isinstance(x, np.ndarray):
        x = _from_numpy(x, model)
    if isinstance(x, Mapping):
        raise UsageError(
            f"x is a {type(x).__name__} with {', '.join(map(str, x))}: give the tensor of images "
            "in it, such as x['pixel_values']"
        )
    if isinstance(x, (tuple, list)):
        raise UsageError(
            f"x is a {type(x).__name__} of {len(x)}: give one tensor [B, C, H, W] (torch.stack); a "
            "model of several inputs is wrapped in a function of the images alone"
        )
    if not isinstance(x, Tensor):
        raise UsageError(
            f"x is a {type(x).__name__}: give a tensor of normalised images, [B, C, H, W]"
        )
    if x.layout != torch.strided:
        raise UsageError("x is a sparse tensor: give a dense one, x.to_dense()")
    if x.is_meta:
        raise UsageError("x is on the device meta, without numbers: give images of a real device")
    if not x.is_floating_point():
        raise UsageError(
            f"x is {x.dtype}: give normalised images of floating point, such as "
            "InputSpace().from_pixels(x / 255)"
        )
    if _lacks_batch(x, model):
        x = x.unsqueeze(0)
    if x.dim() < 2 or x.numel() == 0:
        raise UsageError(f"x has the shape {tuple(x.shape)}: give at least one image [B, C, H, W]")
    return x


def as_target(target: Any, x: Tensor, classes: int | None) -> Tensor:
    """The class of each image, int64 [B].

    Args:
        target: a number for all images, or one per image: list, NumPy array or integer tensor.
        x: the images, [B, ...].
        classes: how many there are, if known.

    Raises:
        UsageError: if it is something else, or out of range.
    """
    batch = x.shape[0]
    if isinstance(target, Tensor) and target.dtype == torch.int64 and target.device == x.device:
        given, limit = target, None  # gather checks it, and no GPU is waited for
    else:
        given, limit = _integers(target), classes
    if given.dim() == 0:
        given = given.expand(batch)
    if given.shape != (batch,):
        more = ""
        if given.dim() == 2 and given.shape == (batch, classes):
            more = ", such as target.argmax(1)"
        raise UsageError(
            f"target has the shape {tuple(given.shape)} for {batch} images: give one class per "
            f"image{more}"
        )
    if limit is not None and not bool(((given >= 0) & (given < limit)).all()):
        raise UsageError(
            f"target {given.tolist()} does not fit: the model has {limit} classes, 0..{limit - 1}"
        )
    return given.to(x.device, torch.int64)


def _integers(target: Any) -> Tensor:
    """A target of any kind as a tensor of integers."""
    try:
        given = target if isinstance(target, Tensor) else torch.as_tensor(np.asarray(target))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"target is a {type(target).__name__}: give one class number per image"
        ) from error
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise UsageError(f"target is {given.dtype}: give class numbers, integers, one per image")
    return given


def _from_numpy(x: np.ndarray[Any, Any], model: nn.Module) -> Tensor:
    """An array as a tensor that the model takes, in memory of its own."""
    if x.dtype.kind not in "fiub":
        raise UsageError(f"x is an array of {x.dtype}: give numbers, [B, C, H, W]")
    tensor = torch.tensor(x)
    if not tensor.is_floating_point():
        return tensor
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    return tensor.float() if weight is None else tensor.to(weight.device, weight.dtype)


def _lacks_batch(x: Tensor, model: nn.Module) -> bool:
    """Whether ``x`` is one image for the model's first convolution, not a batch of them."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            dims = len(module.kernel_size)
            return x.dim() == dims + 1 and x.shape[0] == module.in_channels
    return False
