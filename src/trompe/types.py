"""The types that pass between the layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trompe.errors import ExplanationError, TargetError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def constant_vector(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of a few numbers, made once: copying them to a GPU in every step waits for it."""
    return torch.tensor(values, dtype=dtype, device=device)


@dataclass(frozen=True)
class InputSpace:
    """The normalised space a model works in: ``x = (pixels - mean) / std``, pixels in 0..1.

    Args:
        mean: per channel, in pixel units 0..1.
        std: per channel, in pixel units, positive.

    Raises:
        UsageError: if the lengths differ or a std is not positive.

    Example:
        >>> InputSpace().low[0]
        -2.117903930131004
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(
                f"mean has {len(self.mean)} channels and std {len(self.std)}: give one of each per "
                "channel"
            )
        if not all(s > 0 for s in self.std):
            raise UsageError(f"std must be positive, not {self.std}")

    @property
    def low(self) -> tuple[float, ...]:
        """The normalised value of a black pixel, per channel."""
        return tuple((0.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))

    @property
    def high(self) -> tuple[float, ...]:
        """The normalised value of a white pixel, per channel."""
        return tuple((1.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.dim() < 2 or like.shape[1] != len(values):
            raise UsageError(
                f"the input space has {len(values)} channels, the tensor the shape "
                f"{tuple(like.shape)}: expected [B, {len(values)}, ...]"
            )
        return constant_vector(values, like.dtype, like.device).view(1, -1, *[1] * (like.dim() - 2))

    def clamp(self, x: Tensor) -> Tensor:
        """The nearest valid image to normalised ``x`` [B, C, H, W]: every pixel within 0..1."""
        return torch.clamp(x, self._column(self.low, x), self._column(self.high, x))

    def scale(self, amount: float, like: Tensor) -> Tensor:
        """A change of ``amount`` pixel units (0..1) in normalised units, [1, C, 1, 1]."""
        return amount / self._column(self.std, like)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Normalised ``x`` [B, C, H, W] as pixels in 0..1 (not clamped)."""
        return x * self._column(self.std, x) + self._column(self.mean, x)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..1 [B, C, H, W] as normalised values."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)


class Explanation(NamedTuple):
    """A map together with the logits of the forward pass that gave it (one pass serves both)."""

    map: Tensor
    logits: Tensor


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
    if magnitude.dim() == 4:
        magnitude = magnitude.sum(dim=1)
    total = magnitude.flatten(1).sum(dim=1)
    return magnitude / total.view(-1, *[1] * (magnitude.dim() - 1))


def heatmap(relevance: Tensor) -> Tensor:
    """The heat map of a relevance map: absolute value, channel sum, divided by the image's total.

    Args:
        relevance: [B, C, H, W], or [B, D] for vectors.

    Returns:
        [B, H, W] (or [B, D]), not negative, each image summing to 1 (PAPER.md, section 1).

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


@dataclass(frozen=True)
class LoadedModel:
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

    def label(self, index: int) -> str:
        """The readable name of class ``index``."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, judged on the ORIGINAL model for the ORIGINAL class.

    All tensors are detached, on the CPU, in the dtype of the attack; B images, T iterations.

    Args:
        x: the original images, normalised, [B, C, H, W].
        x_adv: the manipulated images: per image the best iterate that keeps the output, or the
            original where none is better.
        target_class: the class that all maps explain, [B]: the one predicted on the original image,
            or the one asked for.
        map_original: heat map of the original image, [B, H, W], each summing to 1.
        map_target: the heat map that was aimed at, [B, H, W]; ``None`` for an objective without.
        map_adv: heat map of the manipulated image, [B, H, W].
        logits_original: [B, K].
        logits_adv: [B, K].
        history: per quantity a tensor [T, B]; ``iteration`` is [T].
        iterations: how many were done (fewer than asked after an interruption or a NaN).
        stopped: why it ended: ``finished``, ``interrupted`` or ``not finite``.
        provenance: settings and versions, JSON-serialisable.
    """

    x: Tensor
    x_adv: Tensor
    target_class: Tensor
    map_original: Tensor
    map_target: Tensor | None
    map_adv: Tensor
    logits_original: Tensor
    logits_adv: Tensor
    history: Mapping[str, Tensor]
    iterations: int
    stopped: str
    provenance: Mapping[str, Any]

    @property
    def class_kept(self) -> Tensor:
        """Whether the original model still predicts the class of the original image, bool [B]."""
        return self.logits_adv.argmax(dim=1) == self.logits_original.argmax(dim=1)

    @property
    def found(self) -> Tensor:
        """Whether anything was found, bool [B]; the original image is nothing found."""
        return (self.x_adv != self.x).flatten(1).any(dim=1)

    @property
    def success(self) -> Tensor:
        """Whether something was found that keeps the class, bool [B].

        That the objective is better than on the original image is all that this says: how far the
        map has moved, the metrics tell.
        """
        return self.found & self.class_kept

    @property
    def aim(self) -> Tensor:
        """The heat map that was aimed at, [B, H, W].

        Raises:
            TargetError: if the objective aims at none.
        """
        if self.map_target is None:
            raise TargetError("this attack aimed at no map: its objective has none")
        return self.map_target


Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as ``progress(iteration, iterations, numbers)`` after every step of long work."""
