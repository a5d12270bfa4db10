"""Images and target maps, as the options of a command name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trompe.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.explain import Method
    from trompe.types import LoadedModel

DEFAULT_IMAGE, DEFAULT_TARGET = "cat", "rocket"
BUILT_IN = ("cat", "coffee", "rocket")
"""Names that stand for photos of scikit-image, where no file is called so."""


@dataclass(frozen=True)
class Images:
    """Images ready for a model.

    Args:
        names: what the user called them.
        x: normalised, on the model's device, [B, C, H, W].
        pixels: in 0..1, [B, C, H, W].
    """

    names: tuple[str, ...]
    x: Tensor
    pixels: Tensor


def with_folders(paths: Sequence[str]) -> list[str]:
    """The paths, with the images of a folder, by name, in place of the folder.

    Raises:
        ImageError: if a folder holds no image.
    """
    from trompe.zoo.images import list_images

    found: list[str] = []
    for path in paths:
        found += map(str, list_images(path)) if Path(path).is_dir() else [path]
    return found


def is_built_in(name: str) -> bool:
    """Whether ``name`` stands for a photo of scikit-image."""
    return name in BUILT_IN and not Path(name).exists()


def read_images(paths: Sequence[str], loaded: LoadedModel, default: str) -> Images:
    """Read the files (or photos of scikit-image), or the default image if none is named.

    Raises:
        ImageError: if one cannot be used.
    """
    import torch

    from trompe.zoo.images import default_images, load_image

    paths = paths or [default]
    photos = default_images(how=loaded.preprocessing) if any(map(is_built_in, paths)) else {}
    pixels = [
        photos[path] if is_built_in(path) else load_image(path, how=loaded.preprocessing)
        for path in paths
    ]
    stacked = torch.stack(pixels)
    place = next(loaded.model.parameters(), stacked).device
    return Images(tuple(paths), loaded.input_space.from_pixels(stacked).to(place), stacked)


def explained_classes(loaded: LoadedModel, x: Tensor, target_class: int | None) -> Tensor:
    """The class explained of each image, int64 [B]: that of ``--target-class``, or the predicted.

    Raises:
        UsageError: if the model has no such class.
    """
    import torch

    with torch.no_grad():
        return classes_of(loaded.model(x), target_class)


def classes_of(logits: Tensor, target_class: int | None) -> Tensor:
    """As ``explained_classes``, from the logits [B, K] that the model itself gives."""
    import torch

    if target_class is None:
        return logits.argmax(dim=1)
    if not 0 <= target_class < logits.shape[1]:
        last = logits.shape[1] - 1
        what = f"the classes 0..{last}" if last else "one output, which is class 0 here"
        raise UsageError(f"--target-class {target_class}: the model has {what}")
    return torch.full_like(logits.argmax(dim=1), target_class)


@dataclass(frozen=True)
class Target:
    """What the explanation shall become.

    Args:
        name: what the user called it.
        map: heat map, [H, W].
        pixels: the image that it explains, 0..1, [3, H, W], if there is one.
    """

    name: str
    map: Tensor
    pixels: Tensor | None = None


def read_target(
    image: str | None,
    text: str | None,
    map_file: str | None,
    loaded: LoadedModel,
    method: Method,
) -> Target:
    """The one target that was named: an image to be explained, a text, or a map in a file.

    Raises:
        UsageError: if several were named.
        TrompeError: if it cannot be used.
    """
    import torch

    from trompe.types import heatmap
    from trompe.zoo.targets import map_from_file, text_map

    if sum(option is not None for option in (image, text, map_file)) > 1:
        raise UsageError("give one of --target, --target-text and --target-map")
    if text is not None:
        return Target(text, text_map(text, loaded.size, loaded.size))
    if map_file is not None:
        return Target(map_file, map_from_file(map_file, loaded.size, loaded.size))
    images = read_images([] if image is None else [image], loaded, DEFAULT_TARGET)
    with torch.no_grad():
        predicted = loaded.model(images.x).argmax(dim=1)
    heat = heatmap(method(loaded.model, images.x, predicted)).cpu()
    return Target(Path(images.names[0]).name, heat[0], images.pixels[0])
