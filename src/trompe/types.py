"""The types that pass between the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trompe.attack_result import AttackResult
from trompe.errors import ExplanationError, UsageError
from trompe.in_brief import InBrief, brief
from trompe.input_space import IMAGENET_MEAN, IMAGENET_STD, InputSpace, constant_vector
from trompe.outputs import Outputs, declared
from trompe.per_image import per_image

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AttackResult",
    "Explainer",
    "Explanation",
    "Follow",
    "InputSpace",
    "LoadedModel",
    "Preprocessing",
    "Progress",
    "constant_vector",
    "heatmap",
    "relative",
]


class Explanation(NamedTuple):
    """A map together with the logits of the forward pass that gave it (one pass serves both)."""

    map: Tensor
    logits: Tensor

    def __repr__(self) -> str:
        """The shapes of both."""
        return f"Explanation(map: {brief(self.map)}, logits: {brief(self.logits)})"


@runtime_checkable
class Explainer(Protocol):
    """A function from a model, images and classes to relevance maps.

    Pure and batched: the map of a batch is the maps of its images, nothing of the model or of the
    caller's tensors changes. Twice differentiable: the map carries a graph when ``x`` (or the
    model) requires grad, and only then.
    """

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """Explain ``target`` [B] for ``x`` [B, C, H, W]; returns the map [B, C, H, W]."""
        ...


def relative(relevance: Tensor) -> Tensor:
    """As ``heatmap``, without its check: not a number where the map is all zero or not finite."""
    magnitude = relevance.abs()
    if magnitude.dtype in (torch.float16, torch.bfloat16):
        magnitude = magnitude.float()  # whose sums and quotients those types are too coarse for
    if magnitude.dim() == 4:
        magnitude = magnitude.sum(dim=1)
    total = magnitude.flatten(1).sum(dim=1)
    return magnitude / per_image(total, magnitude)


def heatmap(relevance: Tensor) -> Tensor:
    """The heat map of a relevance map: absolute value, channel sum, divided by the image's total.

    Args:
        relevance: [B, C, H, W], or [B, D] for vectors; of signals [B, C, T] and volumes
            [B, C, D, H, W], whose channels keep maps of their own.

    Returns:
        [B, H, W] (or [B, D]), not negative, each image summing to 1 (Dombrowski et al. 2019).

    Raises:
        ExplanationError: if an image's map is all zero or not finite.
    """
    share = relative(relevance)
    good = torch.isfinite(share).flatten(1).all(dim=1)
    if not bool(good.all()):
        index = int((~good).nonzero()[0])
        what = "all zero" if not bool(relevance[index].any()) else "not finite"
        raise ExplanationError(
            f"the map of image {index} is {what}, so it has no heat map: try another method or "
            "smooth the model (beta)"
        )
    return share


@dataclass(frozen=True)
class Preprocessing:
    """How an image of any size becomes the pixels that a model takes, before normalisation.

    Args:
        size: height and width of the model's input, in pixels.
        resize: shorter side to which an image is resized before the centre crop, in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``, antialiased.
        channels: 3 for RGB, 1 for grey; any other number is read from arrays only.

    Raises:
        UsageError: if ``size`` is not within 1..``resize``, or the interpolation is unknown.
    """

    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise UsageError(
                f"cannot crop {self.size} pixels from a shorter side of {self.resize}: choose "
                "size <= resize"
            )
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise UsageError(
                f"unknown interpolation '{self.interpolation}': choose nearest, bilinear, bicubic "
                "or lanczos"
            )


@dataclass(frozen=True, repr=False)
class LoadedModel(InBrief):
    """A classifier ready to be explained, with what is needed to feed it and to name its output.

    Args:
        model: in evaluation mode, parameters without grad.
        input_space: the normalisation the model was trained with.
        classes: label of each output; empty if unknown.
        name: how the user named it.
        size: height and width of its input, in pixels.
        resize: shorter side to which an image is resized before the centre crop.
        patterns: learned patterns by parameter name, if any come with the model.
        interpolation: by which an image is resized; see ``Preprocessing``.
    """

    model: nn.Module
    input_space: InputSpace = field(default_factory=InputSpace)
    classes: tuple[str, ...] = ()
    name: str = ""
    size: int = 224
    resize: int = 256
    patterns: Mapping[str, Tensor] | None = None
    interpolation: str = "bilinear"

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the pixels that this model takes."""
        channels = len(self.input_space.mean)
        return Preprocessing(self.size, self.resize, self.interpolation, channels)

    @property
    def outputs(self) -> Outputs:
        """What its outputs mean, as was found or told when it was loaded."""
        return declared(self.model) or Outputs()

    def label(self, index: int) -> str:
        """The readable name of output ``index``."""
        return self.outputs.output_name(index, self.classes)

    def answer_label(self, answer: int) -> str:
        """The readable name of an answer: a class; of a binary decision that of 0 or 1."""
        return self.outputs.answer_name(answer, self.classes)


Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as ``progress(iteration, iterations, numbers)`` after every step of long work."""

Follow = Callable[[int, Tensor], None]
"""Called as ``follow(steps done, images)`` after every step of an attack, normalised images."""
