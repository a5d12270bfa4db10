"""From what a visitor chose, drew, wrote and uploaded to tensors."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trompe.errors import ImageError, TargetError, UsageError
from trompe.explain import Method, explainers
from trompe.geometry.smoothed_method import WRAPPERS, make_method
from trompe.ordinary import read_ordinary
from trompe.types import LoadedModel, Preprocessing, heatmap
from trompe.zoo.images import default_images, load_image
from trompe.zoo.targets import map_from_drawing, text_map

PHOTOS = ("coffee", "cat", "rocket")
"""Photos that come along."""
OWN = "your own"
"""The choice that stands for an uploaded photo."""
DRAWN, WRITTEN, COPIED = "draw", "write", "copy"
"""Where the target comes from: the visitor's hand, words, or the explanation of another photo."""
QUICK = frozenset(
    {"attention_rollout", "deconvnet", "excitation_backprop", "grad_cam", "grad_times_input",
     "gradient", "guided_backprop", "lrp", "pattern_attribution", "pattern_net"}
)  # fmt: skip
"""Explanations that take one pass or two: they are shown of a photo before an attack is begun."""
MOST_STEPS, LONGEST_TEXT, LARGEST_UPLOAD = 500, 200, 30_000_000
"""Bounds on what a visitor may ask for: steps, letters, bytes."""

_OF_OTHERS = (*WRAPPERS, "mean_of", "median_smooth")


def offered_methods() -> list[str]:
    """The explanation methods of the page: those that need no other method to be named."""
    return [name for name in explainers.names() if name not in _OF_OTHERS]


@dataclass(frozen=True)
class Wish:
    """What a visitor asked for, as the page has it.

    Args:
        photo: one of ``PHOTOS``, or ``OWN``.
        upload: file of the own photo, if there is one.
        model: name of the network.
        method: name of the explanation attacked.
        preset: name of the settings.
        steps: how many.
        source: of the target: ``DRAWN``, ``WRITTEN`` or ``COPIED``.
        drawing: the address of a PNG, ``data:image/png;base64,...``.
        text: that the explanation shall show.
        other: photo whose explanation it shall show.
        other_upload: file of that photo, if it is an own one.
    """

    photo: str
    upload: str | None
    model: str
    method: str
    preset: str
    steps: int
    source: str
    drawing: str | None = None
    text: str = ""
    other: str = "rocket"
    other_upload: str | None = None

    def __post_init__(self) -> None:
        if self.method not in offered_methods():
            raise UsageError(f"this page has no method '{self.method}': choose another")
        if not 1 <= self.steps <= MOST_STEPS:
            raise UsageError(f"the steps must be 1 to {MOST_STEPS}, not {self.steps}")
        if len(self.text) > LONGEST_TEXT:
            raise UsageError(f"the text has {len(self.text)} letters: write at most {LONGEST_TEXT}")

    def image(self, loaded: LoadedModel) -> Tensor:
        """The photo, normalised, [1, C, H, W]."""
        return _normalised(photo_pixels(self.photo, self.upload, loaded.preprocessing), loaded)

    def target(self, loaded: LoadedModel, method: Method) -> Tensor:
        """The map aimed at, [H, W], summing to 1.

        Raises:
            TrompeError: if nothing is drawn or written, or the photo cannot be used.
        """
        if self.source == DRAWN:
            return map_from_drawing(drawn_bytes(self.drawing), loaded.size, loaded.size)
        if self.source == WRITTEN:
            return text_map(self.text, loaded.size, loaded.size)
        if self.source != COPIED:
            raise UsageError(f"unknown source of a target '{self.source}'")
        x = _normalised(photo_pixels(self.other, self.other_upload, loaded.preprocessing), loaded)
        with torch.no_grad():
            predicted = loaded.model(x).argmax(dim=1)
        return heatmap(method(loaded, x, predicted))[0].detach().cpu()

    def explainer(self, loaded: LoadedModel) -> Method:
        """The method attacked."""
        return make_method(self.method, loaded)


def photo_pixels(name: str, upload: str | None, how: Preprocessing) -> Tensor:
    """A photo as a network takes it, 0..1, [C, H, W].

    Raises:
        ImageError: if it cannot be used.
        UsageError: if there is no photo of that name.
    """
    if name in PHOTOS:
        return default_images(how=how)[name]
    if name != OWN:
        raise UsageError(f"there is no photo '{name}': choose {', '.join(PHOTOS)}")
    if upload is None:
        raise ImageError("no photo is uploaded yet: upload one, or choose another")
    # What is said about it names the file as the visitor does, not its place on this machine.
    return load_image(Path(upload).name, how=how, data=read_ordinary(upload, LARGEST_UPLOAD))


def drawn_bytes(address: str | None) -> bytes:
    """The PNG in the address that a canvas gives.

    Raises:
        TargetError: if there is none, or it is none.
    """
    start = "data:image/png;base64,"
    if not address:
        raise TargetError("nothing is drawn yet: draw at least one line")
    if not address.startswith(start) or len(address) > LARGEST_UPLOAD:
        raise TargetError("the drawing cannot be read: clear it and draw again")
    try:
        return base64.b64decode(address[len(start) :], validate=True)
    except binascii.Error as error:
        raise TargetError("the drawing cannot be read: clear it and draw again") from error


def _normalised(pixels: Tensor, loaded: LoadedModel) -> Tensor:
    place = next(loaded.model.parameters(), pixels).device
    return loaded.input_space.from_pixels(pixels[None]).to(place)
