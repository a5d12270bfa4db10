"""The cells of a batch, and reading their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trompe.audit.claims import claim_of
from trompe.audit.source import Source
from trompe.said import reason
from trompe.types import Preprocessing

Pixels = Mapping[int, Tensor | str]
"""Images by their numbers: pixels 0..1 [C, H, W], or in words why they cannot be had."""


WORST_CASE = "worst-case"
"""In place of a preset's name: cells that look for the map least like the original one."""

CERTIFICATE = "certificate"
"""In place of a preset's name: cells that bound how far the smoothed map can be moved at most."""


@dataclass(frozen=True)
class Cell:
    """One pair under one model, method, smoothing and preset."""

    id: int
    image: int
    target: int


@dataclass(frozen=True)
class Batch:
    """Cells of one model and kind (method, smoothing, preset) that are worked on at once."""

    id: int
    model: str
    kind: tuple[str, str, str]
    cells: tuple[Cell, ...]

    @property
    def claim(self) -> str:
        """What it is called among the claims."""
        return claim_of(self.id)


def read_images(source: Source, cells: Sequence[Cell], how: Preprocessing) -> Pixels:
    """Read every image of some cells once; one that cannot be read fails its own cells alone."""
    pixels: dict[int, Tensor | str] = {}
    for image in dict.fromkeys(i for cell in cells for i in (cell.image, cell.target)):
        try:
            pixels[image] = source.pixels(image, how)
        except Exception as error:  # decoders raise almost anything
            pixels[image] = reason(error)
    return pixels
