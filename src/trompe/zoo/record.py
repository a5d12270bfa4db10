"""What is known about one model: how it is built, fed and labelled, and where its weights are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trompe.types import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class ModelRecord:
    """One known model.

    Args:
        name: what the user calls it.
        source: where its weights come from: ``installed`` with trompe's dependencies, ``embedded``,
            ``torchvision``, ``timm``, ``hugging face``, ``a file`` or ``a function``.
        build: makes the untrained module for a number of classes.
        outputs: how many classes its own weights tell apart.
        size: height and width of its input, in pixels.
        resize: shorter side of an image before the centre crop, in pixels.
        mean: of the normalisation, per channel.
        std: of the normalisation, per channel.
        interpolation: by which an image is resized.
        state: fetches its own weights; ``None`` if they have to be given as a file.
        labels: fetches the labels of its own classes.
        patterns: fetches the learned patterns that come with it.
        with_channels: the record of the same model for images of so many channels; ``None`` where
            its library does not let one choose.
    """

    name: str
    source: str
    build: Callable[[int], nn.Module]
    outputs: int
    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    state: Callable[[], Mapping[str, Tensor]] | None = None
    labels: Callable[[], tuple[str, ...]] = tuple
    patterns: Callable[[], Mapping[str, Tensor] | None] = lambda: None
    with_channels: Callable[[int], ModelRecord] | None = None
