"""Results as people look at them in a notebook: a picture and a few lines."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from trompe.errors import UsageError
from trompe.report.attack_words import image_in_words
from trompe.report.explanations import explanations_figure
from trompe.report.files import image_metrics
from trompe.report.overview import overview_figure
from trompe.report.style import FONT, new_figure
from trompe.types import AttackResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from trompe.certificates.sandwich import Sandwich

_COLUMNS = 3
SHOWN = 4
"""How many images of a batch a notebook shows by itself."""


def overview(
    result: AttackResult, index: int = 0, *, target_pixels: Tensor | None = None
) -> Figure:
    """Draw one image of an attack: original, manipulated, change, and the heat maps.

    Args:
        result: of the attack on B images.
        index: which of them; negative numbers count from the end.
        target_pixels: the image whose explanation was aimed at, 0..1, [C, H, W], if any.

    Returns:
        A figure of matplotlib; ``figure.savefig`` writes it.

    Raises:
        UsageError: if there is no image of that number.
    """
    count = len(result.x)
    if not -count <= index < count:
        raise UsageError(f"there is no image {index}: the result has {count}, counted from 0")
    return overview_figure(
        result,
        result.input_space,
        labels=result.classes,
        target_pixels=target_pixels,
        index=index % count,
    )


def maps(
    pixels: Tensor,
    maps: Mapping[str, Sequence[Tensor]],
    *,
    betas: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """Draw heat maps in a grid: one row per name; see ``trompe.report.explanations_figure``."""
    return explanations_figure(pixels, maps, betas, title=title)


def curves(result: AttackResult, index: int = 0) -> Figure:
    """Draw what an attack recorded of one image in every step, one panel per quantity.

    Args:
        result: of the attack on B images.
        index: which of them; negative numbers count from the end.

    Raises:
        UsageError: if there is no image of that number, or nothing was recorded.
    """
    count = len(result.x)
    if not -count <= index < count:
        raise UsageError(f"there is no image {index}: the result has {count}, counted from 0")
    names = [name for name in result.history if name != "iteration"]
    if not names:
        raise UsageError("the attack recorded nothing: there are no curves to draw")
    steps = result.history.get("iteration", torch.arange(result.iterations)).tolist()
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(3.0 * columns, 2.4 * rows)
    figure.set_layout_engine("constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(steps, result.history[name][:, index].tolist())
        axes.set_title(name.replace("_", " "), fontsize=FONT)
        axes.set_xlabel("step", fontsize=FONT)
        axes.tick_params(labelsize=FONT - 1)
    return figure


def sandwich(found: Sandwich, title: str = "") -> Figure:
    """Draw what an attack found beside what is proved; see ``trompe.certificates.sandwich``."""
    from trompe.report.geometry import sandwich_figure

    return sandwich_figure(found, title)


def summary(result: AttackResult) -> str:
    """What happened to each image of an attack, in a few plain lines."""
    count = len(result.x)
    aim = "none" if result.map_target is None else "a map"
    entries = image_metrics(
        result,
        result.input_space,
        image_names=[f"image {index}" for index in range(count)],
        target_names=[aim] * count,
    )
    lines = [line for entry in entries for line in image_in_words(entry, result)]
    if result.stopped != "finished":
        lines.append(f"Ended early ({result.stopped}) after {result.iterations} steps.")
    return "\n".join(lines)


def html(result: AttackResult) -> str:
    """The pictures of the first images and the summary, as HTML without scripts or links."""
    pictures = []
    for index in range(min(SHOWN, len(result.x))):
        file = io.BytesIO()
        overview(result, index).savefig(file, format="png", dpi=100)
        code = base64.b64encode(file.getvalue()).decode("ascii")
        source = f"data:image/png;base64,{code}"
        pictures.append(f'<img alt="image {index}" style="max-width:100%" src="{source}">')
    left = len(result.x) - len(pictures)
    more = f"<p>{left} more: result.plot(index)</p>" if left else ""
    words = f'<pre style="font-family:monospace">{markup.escape(summary(result))}</pre>'
    return f"{''.join(pictures)}{more}{words}"
