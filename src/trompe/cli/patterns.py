"""``trompe patterns``: learn the patterns that pattern attribution needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trompe.cli.console import progress_bar
from trompe.cli.options import (
    COUNT,
    ModelOptions,
    json_option,
    model_options,
    output_folder,
    quiet_option,
)
from trompe.cli.output_path import OutputPath
from trompe.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.types import LoadedModel


_EXAMPLES = """\b
Examples:
  trompe patterns --data photos/ --model vgg16 --output vgg16.safetensors
  trompe attack --model vgg16 --method pattern_attribution --patterns vgg16.safetensors
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--data",
    required=True,
    metavar="PATH",
    help="A folder of images, or an .npz file (arrays jpeg, offsets, label).",
)
@model_options
@click.option(
    "--limit",
    type=COUNT,
    default=2000,
    show_default=True,
    help="Images to learn from, at most.",
)
@click.option("--batch-size", type=COUNT, default=32, show_default=True, help="Images at once.")
@click.option(
    "--output",
    type=OutputPath(file=True),
    metavar="FILE",
    default="trompe-out/patterns.safetensors",
    show_default=True,
    help="Where to write them; a file of that name is replaced.",
)
@json_option
@quiet_option
def patterns(
    data: str,
    network: ModelOptions,
    limit: int,
    batch_size: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Learn the patterns that pattern attribution needs from images.

    A pattern is what in the data, layer by layer, makes each neuron of a network respond.
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output} must end in .safetensors")
    if output.is_dir():
        raise OutputError(f"output '{output}' is a folder: name a file")
    loaded = network.load()
    images = _Pixels(data, loaded, limit)
    from trompe.rules.patterns import learn_patterns, save_patterns

    with (
        output_folder(output.parent),
        progress_bar("patterns", unit="image", quiet=quiet) as progress,
    ):

        def seen(count: int) -> None:
            if progress is not None:
                progress(count, len(images), {})

        learned = learn_patterns(loaded.model, images.batches(batch_size), seen)
        save_patterns(output, learned)
    if as_json:
        shapes = {name: list(pattern.shape) for name, pattern in learned.items()}
        report = {"patterns": str(output), "images": len(images), "shapes": shapes}
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"Patterns of {len(learned)} layers from {len(images)} images: {output}")


class _Pixels:
    """The images of a folder or an npz file, in batches ready for a model."""

    def __init__(self, data: str, loaded: LoadedModel, limit: int) -> None:
        from trompe.zoo.images import list_images
        from trompe.zoo.npz_images import NpzImages

        self.loaded = loaded
        self.source = NpzImages(data) if data.endswith(".npz") else list_images(data)
        self.count = min(limit, len(self.source))

    def __len__(self) -> int:
        return self.count

    def _pixels(self, index: int) -> Tensor:
        from trompe.zoo.images import fit_pixels, load_image

        if isinstance(self.source, list):
            return load_image(self.source[index], how=self.loaded.preprocessing)
        return fit_pixels(self.source[index][0], self.loaded.preprocessing)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Normalised images [B, 3, H, W] on the model's device, B at most ``size``."""
        import torch

        place = next(self.loaded.model.parameters(), torch.empty(0)).device
        for start in range(0, self.count, size):
            some = range(start, min(start + size, self.count))
            pixels = torch.stack([self._pixels(index) for index in some])
            yield self.loaded.input_space.from_pixels(pixels).to(place)
