"""What ``manipulate`` asks of its arguments; every error is one line that names the thing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trompe.attacks.batches import out_of_memory
from trompe.engine.runners import RUNNERS
from trompe.errors import ModelError, TargetError, UsageError


def check_choices(
    output: str, keep: str, start_noise: float, batch_size: int | None, capture: str
) -> None:
    """Refuse settings of ``manipulate`` that are none.

    Raises:
        UsageError: naming the setting.
    """
    if output not in ("softmax", "logits"):
        raise UsageError(f"unknown output '{output}': choose from softmax, logits")
    if keep not in ("best", "last"):
        raise UsageError(f"unknown keep '{keep}': choose from best, last")
    captures = ("auto", "never", *RUNNERS)
    if capture not in captures:
        raise UsageError(f"unknown capture '{capture}': choose from {', '.join(captures)}")
    if not 0 <= start_noise < math.inf:
        raise UsageError(f"start_noise must not be negative, not {start_noise}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")


def checked_images(x: Tensor) -> Tensor:
    """A copy of the images.

    Raises:
        UsageError: if they are no images.
    """
    if x.dim() != 4 or not x.is_floating_point() or x.shape[0] == 0:
        raise UsageError(
            f"x has the shape {tuple(x.shape)} and type {x.dtype}: give normalised images, "
            "floating point, [B, C, H, W]"
        )
    if not bool(torch.isfinite(x).all()):
        raise UsageError("x holds values that are not finite")
    return x.detach().clone()


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    """The class of each image, [B].

    Raises:
        ModelError: if the model does not return finite logits.
    """
    try:
        with torch.no_grad():
            logits = model(x.clone())
    except RuntimeError as error:  # the wrong number of channels, size or type
        if out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the model fails on images of shape {tuple(x.shape)}: {reason}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returns {found}: a classifier returns logits [B, K]")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the model returns logits that are not finite on the original images")
    return logits.argmax(dim=1)


def checked_target(target_map: Tensor, x: Tensor) -> Tensor:
    """The target as one heat map per image of ``x`` [B, C, H, W], [B, H, W].

    Raises:
        TargetError: if it has another shape, is all zero, or not finite.
    """
    count, shape = x.shape[0], x.shape[2:]
    aim = target_map.detach().to(x.device, x.dtype)
    if aim.dim() == len(shape):
        aim = aim.unsqueeze(0)
    if aim.dim() != len(shape) + 1 or aim.shape[1:] != shape:
        raise TargetError(
            f"the target map has the shape {tuple(target_map.shape)}, the images' maps "
            f"{(count, *shape)}: resize it first"
        )
    if aim.shape[0] not in (1, count):
        raise TargetError(f"{aim.shape[0]} target maps for {count} images: give one each")
    if not bool(torch.isfinite(aim).all()):
        raise TargetError("the target map holds values that are not finite")
    if not bool(aim.flatten(1).any(dim=1).all()):
        raise TargetError("the target map is all zero")
    aim = aim.abs().expand(count, *shape)
    return aim / aim.flatten(1).sum(dim=1).view(-1, *[1] * len(shape))
