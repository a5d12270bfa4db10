"""Some cells of a run as pictures: images, maps and the amplified change, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from trompe.audit import Run
from trompe.audit.provenance import input_space, outputs_meaning
from trompe.audit.results import Row
from trompe.errors import StoreError
from trompe.outputs import outputs_of
from trompe.report.style import MAP_COLOURS, bright

#: The change is multiplied by the first of these that makes it clearly visible.
_FACTORS = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class Exhibit:
    """One cell of the gallery; pictures are data URIs of PNGs.

    Args:
        row: the cell.
        caption: classes before and after.
        original: the image.
        manipulated: the manipulated image.
        target: the target image; ``None`` where the attack aimed at no other image.
        change: the perturbation, amplified.
        factor: by how much.
        map_original: heat map of the image.
        map_manipulated: heat map of the manipulated image.
        map_target: heat map that was aimed at; ``None`` where there was none.
        changed: whether the manipulated image is another one.
    """

    row: Row
    caption: str
    original: str
    manipulated: str
    target: str | None
    change: str
    factor: int
    map_original: str
    map_manipulated: str
    map_target: str | None
    changed: bool = True

    @property
    def title(self) -> str:
        """The image, and what explains it."""
        smoothing = "" if self.row.smoothing is None else f", {self.row.smoothing}"
        return f"{self.row.image}: {self.row.method.replace('_', ' ')}{smoothing}"

    @property
    def numbers(self) -> str:
        """How near the maps and the images are, in words."""
        return ", ".join(
            f"{words} {in_two_places(self.row.values[key])}"
            for words, key in (
                ("PCC to target", "map_target_pcc"),
                ("to original", "map_original_pcc"),
                ("image PSNR", "image_psnr"),
            )
            if key in self.row.values
        )


def in_two_places(value: float) -> str:
    """A number for readers: two digits behind the point, and no zero below zero."""
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _uri(levels: np.ndarray) -> str:  # type: ignore[type-arg]
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def photo_uri(pixels: Tensor) -> str:
    """Pixels 0..1, [C, H, W], as a data URI."""
    pixels = pixels.detach().float().clamp(0, 1)
    if pixels.shape[0] != 3:
        pixels = pixels.mean(dim=0).expand(3, -1, -1)
    return _uri(pixels.mul(255).round().byte().permute(1, 2, 0).numpy())


def map_uri(heat: Tensor, brightest: float) -> str:
    """A heat map [H, W] as a data URI."""
    from matplotlib import colormaps

    share = (heat.detach().float() / brightest).clamp(0, 1).nan_to_num(0).numpy()
    return _uri((255 * colormaps[MAP_COLOURS](share)[..., :3]).round().astype(np.uint8))


def chosen(rows: Sequence[Row], most: int) -> list[Row]:
    """The cells to show: of every kind in turn the best, the median and the worst attack."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    queues = []
    for some in kinds.values():
        some = sorted(some, key=nearness, reverse=True)
        places = dict.fromkeys((0, len(some) // 2, len(some) - 1))
        queues.append([some[place] for place in places])
    found = [queue[turn] for turn in range(3) for queue in queues if turn < len(queue)]
    return sorted(found[:most], key=lambda row: row.id)


def nearness(row: Row) -> float:
    """How far an attack came: near to its target, or away from the original map."""
    if "map_target_pcc" in row.values:
        return row.values["map_target_pcc"]
    return -row.values.get("map_original_pcc", 1.0)


def _factor(change: Tensor) -> int:
    largest = float(np.quantile(change.abs().numpy(), 0.99))
    return next((factor for factor in _FACTORS if factor * largest <= 0.5), 1)


def exhibit(run: Run, row: Row) -> Exhibit:
    """The pictures of one cell.

    Raises:
        StoreError: if its arrays are missing or damaged.
    """
    arrays = run.arrays(row)
    known = run.facts(row.model)
    space, labels = input_space(known), known["labels"]
    x, adv, aim = (space.to_pixels(arrays[k])[0] for k in ("x", "x_adv", "target_x"))
    original, manipulated = (arrays[f"map_{kind}"][0] for kind in ("original", "adv"))
    target = arrays["map_target"][0] if "map_target" in arrays else None
    maps = [original, manipulated, *([] if target is None else [target])]
    brightest = bright([heat for heat in maps if bool(heat.isfinite().all())])
    outputs = outputs_meaning(known) or outputs_of(arrays["logits_original"])
    before, after = (outputs.said(arrays[f"logits_{k}"][0], labels) for k in ("original", "adv"))
    factor = _factor(adv - x)
    caption = f"Before: {before}. After: {after}."
    return Exhibit(
        row=row,
        caption=caption,
        original=photo_uri(x),
        manipulated=photo_uri(adv),
        target=None if row.image == row.target else photo_uri(aim),
        change=photo_uri(0.5 + factor * (adv - x)),
        factor=factor,
        map_original=map_uri(original, brightest),
        map_manipulated=map_uri(manipulated, brightest),
        map_target=None if target is None else map_uri(target, brightest),
        changed=bool((adv != x).any()),
    )


def gallery(run: Run, most: int) -> tuple[list[Exhibit], list[str]]:
    """The pictures of some cells, and why some could not be shown.

    No model is loaded: its normalisation and labels are in the run.

    Args:
        run: with cells that are done.
        most: cells to show.
    """
    shown, problems = [], []
    for row in chosen(run.done, most):
        try:
            shown.append(exhibit(run, row))
        except StoreError as error:
            problems.append(str(error))
    return shown, problems
