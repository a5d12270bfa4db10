"""``--tangents``: of a map only what the images near to the explained one can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.explain import Method
    from trompe.types import LoadedModel

tangents_option = click.option(
    "--tangents",
    metavar="IMAGES",
    help="Project the map on the directions of the nearest of these (a folder, .npz or .csv).",
)


def along_tangents(images: str | None, loaded: LoadedModel) -> Callable[[Method], Method]:
    """What wraps a method in ``TangentProjection``; it leaves the method alone without images.

    Raises:
        UsageError: if there are fewer images than neighbours.
        ImageError: if one cannot be read.
    """
    if images is None:
        return lambda method: method
    import torch

    from trompe.audit.sources import open_source
    from trompe.explain.tangent_projection import TangentProjection

    source = open_source(images)
    if len(source) < (least := TangentProjection.neighbours):
        raise UsageError(
            f"--tangents takes the {least} nearest images, and '{images}' holds {len(source)}: "
            f"give {least} or more"
        )
    pixels = [source.pixels(index, loaded.preprocessing) for index in range(len(source))]
    place = next(loaded.model.parameters(), pixels[0]).device
    data = loaded.input_space.from_pixels(torch.stack(pixels)).to(place)
    return lambda method: TangentProjection(data, method)
