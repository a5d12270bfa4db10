"""What ``manipulate`` asks of its arguments; every error is one line that names the thing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trompe.attacks.batches import out_of_memory
from trompe.attacks.objectives import Objective, objectives, takes_target, written_objective
from trompe.attacks.presets import Preset
from trompe.engine.runners import RUNNERS
from trompe.errors import ExplanationError, ModelError, TargetError, UsageError
from trompe.given import function, in_short, number, of_kind, one_of
from trompe.per_image import per_image
from trompe.said import known
from trompe.types import InputSpace


def check_choices(keep: str, start_noise: float, batch_size: int | None, capture: str) -> None:
    """Refuse settings of ``manipulate`` that are none.

    Raises:
        UsageError: naming the setting.
    """
    one_of("keep", keep, ("best", "last"))
    one_of("capture", capture, ("auto", "never", *RUNNERS))
    if not 0 <= number("start_noise", start_noise) < math.inf:
        raise UsageError(f"start_noise must not be negative, not {start_noise}")
    if batch_size is not None and number("batch_size", batch_size) < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")


def check_kinds(
    *,
    preset: object,
    iterations: object,
    through: object,
    generator: object,
    input_space: object,
    redraw: object,
    progress: Any,
    follow: Any,
) -> None:
    """Refuse arguments of ``manipulate`` of another kind than they are.

    Raises:
        UsageError: naming the argument.
    """
    if not isinstance(preset, str | Preset):
        raise UsageError(f"preset must be a name or a Preset, not {in_short(preset)}")
    if iterations is not None:
        whole = isinstance(iterations, int) and not isinstance(iterations, bool)
        if not whole or not 0 <= number("iterations", iterations) <= _MOST:
            raise UsageError(
                f"iterations must be a whole number, 0 to {_MOST}, not {in_short(iterations)}"
            )
    if not isinstance(through, list | tuple):
        raise UsageError(f"through must be a list of channels, not {in_short(through)}")
    for name, value, kind in (
        ("generator", generator, torch.Generator),
        ("input_space", input_space, InputSpace),
        ("redraw", redraw, bool),
    ):
        if value is not None:
            of_kind(name, value, kind)
    function("progress", progress)
    if follow is not None and isinstance(follow, bool):
        raise UsageError("follow must be a function, not a bool")
    function("follow", follow)


def checked_objective(
    objective: Objective | str, target_map: Tensor | None, x: Tensor, relative: bool
) -> Objective:
    """The objective with what it takes from the arguments of ``manipulate`` in its fields.

    Args:
        objective: a name, with options as in ``unlike:measure=cosine``, or an object.
        target_map: for the field ``target``, where it has one that is empty.
        x: the images, [B, C, H, W].
        relative: for the field ``relative`` of an objective given by name, where it has one.

    Raises:
        UsageError: if it is neither a name nor an objective, or a map is given to one that aims
            at none.
        TargetError: if it aims at a map and there is none, or it is no map.
    """
    if isinstance(objective, str):
        objective = written_objective(objective, relative=relative)
    if not isinstance(objective, Objective):
        raise UsageError(
            f"objective must be a name or an Objective, not a "
            f"{type(objective).__name__}: choose from "
            f"{', '.join(objectives.names())}"
        )
    name = type(objective).__name__
    if not takes_target(objective):
        if target_map is not None:
            raise UsageError(f"{name} aims at no map: leave out target_map")
        return objective
    given = getattr(objective, "target")  # noqa: B009  # a field of some objectives
    if given is not None and target_map is not None:
        raise UsageError(f"{name} has a target of its own: leave out target_map")
    if given is None and target_map is None:
        raise TargetError(f"{name} aims at a map: give target_map")
    aim = checked_target(given if target_map is None else target_map, x)
    return dataclasses.replace(objective, **{"target": aim})


#: No attack takes more steps.
_MOST = 10_000_000

KINDS = {3: "signals [B, C, T]", 4: "images [B, C, H, W]", 5: "volumes [B, C, D, H, W]"}


def checked_space(space: InputSpace | None, x: Tensor) -> InputSpace:
    """The input space, ImageNet's of images where none is given.

    Raises:
        UsageError: if none is given for signals or volumes, which have no usual range.
    """
    if space is None and x.dim() != 4:
        raise UsageError(
            f"{KINDS[x.dim()]} have no usual range, of which radii and changes are shares: give "
            f"input_space=InputSpace.between(low, high, channels={x.shape[1]})"
        )
    return space or InputSpace()


def check_parts(parts: Iterable[object], x: Tensor) -> None:
    """Refuse parts of an attack that are of pictures alone where x is none.

    Raises:
        UsageError: naming the first.
    """
    for part in parts:
        if x.dim() != 4 and getattr(part, "images_only", False):
            raise UsageError(f"{type(part).__name__} is for {KINDS[4]}, not for {KINDS[x.dim()]}")


def checked_images(x: Tensor, dims: tuple[int, ...] = (4,)) -> Tensor:
    """A copy of the images, or of signals and volumes where so many dimensions are allowed.

    Raises:
        UsageError: if they are no images.
    """
    if x.dim() not in dims or not x.is_floating_point() or x.shape[0] == 0:
        raise UsageError(
            f"x has the shape {tuple(x.shape)} and type {x.dtype}: give normalised images, "
            "floating point, [B, C, H, W]" + "; or signals [B, C, T] or volumes" * (len(dims) > 1)
        )
    if not bool(torch.isfinite(x).all()):
        raise UsageError("x holds values that are not finite")
    if x.dtype == torch.float16:
        raise UsageError(
            "x is float16, which is too coarse for the steps of an attack (their squares vanish): "
            "convert images and model with .float(), or to bfloat16"
        )
    return x.detach().clone()


def checked_logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits of each image, [B, K].

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
    return logits


def checked_classes(target: Tensor, logits: Tensor) -> Tensor:
    """The classes to be explained, int64 [B], beside the logits [B, K].

    Raises:
        UsageError: if there is not one class per image, or one that the model does not have.
    """
    count, classes = logits.shape
    known = torch.as_tensor(target)
    if known.dtype.is_floating_point or known.dtype.is_complex or known.dtype == torch.bool:
        raise UsageError(f"target holds {known.dtype}: give class numbers, whole numbers [B]")
    known = known.to(logits.device, torch.int64)
    if known.dim() == 0:
        known = known.expand(count)
    if known.shape != (count,):
        raise UsageError(
            f"target has the shape {tuple(known.shape)} for {count} images: give one class each"
        )
    if bool(((known < 0) | (known >= classes)).any()):
        raise UsageError(f"target {known.tolist()} does not fit: the classes are 0..{classes - 1}")
    return known.clone()


@contextmanager
def named_derivatives(method: str) -> Iterator[None]:
    """A failure of PyTorch's derivatives becomes one line that says what to do.

    Raises:
        ExplanationError: if the model has an operation whose derivative cannot be differentiated.
        ModelError: if the model itself is at fault, in a way that is known.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        if meant := known(error):
            raise ModelError(meant) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExplanationError(
            f"the map of '{method}' cannot be differentiated for this model ({reason}): write the "
            "operation with others that have second derivatives, or attack a method that needs "
            "none, such as 'occlusion'"
        ) from error


def checked_target(target_map: Tensor, x: Tensor) -> Tensor:
    """The target as one heat map per image of ``x`` [B, C, H, W], [B, H, W].

    Of signals [B, C, T] and volumes it is one of their shape, or [T], [D, H, W] for every channel.

    Raises:
        TargetError: if it has another shape, is all zero, or not finite.
    """
    count, shape = x.shape[0], x.shape[2:]
    if not isinstance(target_map, Tensor) or target_map.device.type == "meta":
        kind = type(target_map).__name__
        raise TargetError(f"target_map is a {kind} without numbers: give a tensor [B, H, W]")
    aim = target_map.detach().to(x.device, x.dtype)
    if x.dim() != 4:
        aim = aim.expand(x.shape[1:]) if aim.shape == shape else aim
        shape = x.shape[1:]
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
    return aim / per_image(aim.flatten(1).sum(dim=1), aim)
