"""Labelled images from a folder or an archive, in shuffled batches that a seed repeats."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.kept import tensor_bytes
from trompe.types import LoadedModel
from trompe.zoo.images import fit_pixels, list_images, load_image
from trompe.zoo.npz_images import NpzImages


@dataclass(frozen=True)
class LabelledImages:
    """Images held as bytes, given out as normalised batches.

    Iterated once per epoch; ``begin(epoch)`` chooses the order, so that a training that goes on
    sees what an uninterrupted one would have seen.

    Args:
        pixels: uint8, [N, C, H, W].
        labels: int64, [N].
        loaded: The model they are for: its normalisation and its place.
        batch_size: Images per batch.
        seed: Of the order and the mirroring; ``None``: in order, as they are.
    """

    pixels: Tensor
    labels: Tensor
    loaded: LoadedModel
    batch_size: int = 32
    seed: int | None = 0

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: images [B, C, H, W], normalised, and classes [B]."""
        count = len(self.labels)
        order = torch.arange(count)
        mirrored = torch.zeros(count, dtype=torch.bool)
        if self.seed is not None:
            draw = torch.Generator().manual_seed(1_000_003 * (number + 1) + self.seed)
            order = torch.randperm(count, generator=draw)
            mirrored = torch.rand(count, generator=draw) < 0.5
        parameter = next(self.loaded.model.parameters(), torch.empty(0))
        for chosen in order.split(self.batch_size):
            pixels = self.pixels[chosen].to(parameter.dtype) / 255
            flip = mirrored[chosen].view(-1, 1, 1, 1)
            pixels = torch.where(flip, pixels.flip(3), pixels)
            x = self.loaded.input_space.from_pixels(pixels).to(parameter.device)
            yield x, self.labels[chosen].to(parameter.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def fingerprint(self) -> dict[str, str]:
        """What a training with them depends on, by name."""
        content = hashlib.sha256(tensor_bytes(self.pixels) + tensor_bytes(self.labels))
        return {
            "count": str(len(self.labels)),
            "content": content.hexdigest(),
            "batch size": str(self.batch_size),
            "seed": str(self.seed),
            "normalisation": repr(self.loaded.input_space),
        }

    def part(self, numbers: Sequence[int], *, seed: int | None) -> LabelledImages:
        """Some of the images."""
        index = torch.as_tensor(list(numbers), dtype=torch.int64)
        return LabelledImages(
            self.pixels[index], self.labels[index], self.loaded, self.batch_size, seed
        )

    def parted(self, every: int = 10) -> tuple[LabelledImages, LabelledImages]:
        """The images to train with, and every so many-th, in order, held out from them.

        Raises:
            UsageError: If there is nothing left to train with.
        """
        numbers = range(len(self.labels))
        training = [n for n in numbers if n % every]
        if not training:
            raise UsageError("no image is left to train with: give more than one labelled image")
        held_out = [n for n in numbers if n % every == 0]
        return self.part(training, seed=self.seed), self.part(held_out, seed=None)

    def known_from(self, others: LabelledImages) -> int:
        """How many of the images are, pixel by pixel, among others."""
        known = {one.numpy().tobytes() for one in others.pixels}
        return sum(one.numpy().tobytes() in known for one in self.pixels)

    def spread(self, most: int) -> tuple[Tensor, Tensor]:
        """At most so many images, evenly spaced, as one batch: normalised, and their classes."""
        chosen = self.part(_spread(len(self.labels), most), seed=None)
        return next(iter(replace(chosen, batch_size=len(chosen.labels))))


def read_labelled(
    path: str | Path,
    loaded: LoadedModel,
    *,
    batch_size: int = 32,
    seed: int | None = 0,
    most: int | None = None,
) -> LabelledImages:
    """Read labelled images.

    Args:
        path: A folder with one folder of images per class, in class order by name (or named as the
            model's classes are), or an ``.npz`` archive (see ``NpzImages``).
        loaded: The model, which says how an image is prepared.
        batch_size: Images per batch.
        seed: See ``LabelledImages``.
        most: Take so many of them at most, evenly spaced.

    Raises:
        UsageError: If there is no image, or a class that the model does not have.
        ImageError: If an image cannot be read.
    """
    path = Path(path)
    images: list[Tensor] = []
    labels: list[int] = []
    if path.suffix == ".npz":
        archive = NpzImages(path)
        numbers = _spread(len(archive), most)
        for number in numbers:
            pixels, label = archive[number]
            images.append(fit_pixels(pixels, loaded.preprocessing))
            labels.append(label)
    else:
        files = _class_files(path, loaded)
        for number in _spread(len(files), most):
            file, label = files[number]
            images.append(load_image(file, how=loaded.preprocessing))
            labels.append(label)
    if not images:
        raise UsageError(f"'{path}' holds no labelled images: give a folder of class folders")
    held = torch.stack([(image * 255).round().to(torch.uint8) for image in images])
    classes = len(loaded.classes) or _outputs(loaded, held[:1])
    if classes and max(labels) >= classes:
        raise UsageError(f"'{path}' has class {max(labels)}, the model {classes} classes")
    return LabelledImages(held, torch.tensor(labels), loaded, batch_size, seed)


def _outputs(loaded: LoadedModel, pixels: Tensor) -> int:
    """How many classes a model without labels has; 0 where its outputs are none."""
    if loaded.outputs.meaning != "classes":
        return 0
    parameter = next(loaded.model.parameters(), torch.empty(0))
    with torch.no_grad():
        x = loaded.input_space.from_pixels(pixels.float() / 255).to(parameter.device)
        return int(loaded.model(x).shape[1])


def _spread(count: int, most: int | None) -> list[int]:
    if most is None or most >= count:
        return list(range(count))
    return [count * i // most for i in range(most)]


def _class_files(path: Path, loaded: LoadedModel) -> list[tuple[str, int]]:
    """Every image of the class folders, with its class."""
    if not path.is_dir():
        raise UsageError(f"'{path}' is no folder: give a folder of class folders, or an .npz file")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    named = {label: number for number, label in enumerate(loaded.classes)}
    if folders and all(folder.name in named for folder in folders):
        classes = [named[folder.name] for folder in folders]
    else:
        classes = list(range(len(folders)))
    return [
        (str(file), number)
        for folder, number in zip(folders, classes, strict=True)
        for file in list_images(folder)
    ]
