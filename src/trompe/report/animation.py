"""The two animations: contours that smoothing rounds off, and an attack at work."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trompe.atomic import atomic_path
from trompe.engine.softplus import softplus
from trompe.errors import OutputError
from trompe.report.style import FONT, bright, new_figure, show_map, show_photo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_DPI = 100


def two_layer_values(beta: float | None, *, size: int = 161, seed: int = 0) -> np.ndarray:
    """``V^T act(W^T x)`` on [-1, 1]^2, 50 hidden units, weights uniform in [-1, 1] (figure 24).

    Args:
        beta: of the softplus; ``None`` for ReLU.
        size: points per axis.
        seed: of the weights.

    Returns:
        [size, size], rows are x_2.
    """
    generator = torch.Generator().manual_seed(seed)
    first = 2 * torch.rand(2, 50, generator=generator, dtype=torch.float64) - 1
    second = 2 * torch.rand(50, generator=generator, dtype=torch.float64) - 1
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    hidden = points @ first
    active = hidden.clamp(min=0) if beta is None else softplus(hidden, beta)
    values: np.ndarray = (active @ second).numpy()
    return values


def contour_figure(beta: float | None, *, seed: int = 0) -> Figure:
    """Contour lines of the two-layer network: ReLU left, softplus right."""
    figure = new_figure(6.0, 3.2)
    figure.set_dpi(_DPI)
    pair = figure.subplots(1, 2)
    for axes, strength in zip(pair, (None, beta), strict=True):
        values = two_layer_values(strength, seed=seed)
        levels = np.linspace(values.min(), values.max(), 22)[1:-1]
        axes.contourf(values, levels=60, extent=(-1, 1, -1, 1), cmap="RdBu_r", alpha=0.55)
        axes.contour(
            values, levels=levels, extent=(-1, 1, -1, 1), colors="black", linewidths=0.6,
            linestyles="solid",
        )  # fmt: skip
        name = "ReLU" if strength is None else rf"softplus, $\beta$ = {strength:.1f}"
        axes.set_title(name, fontsize=FONT + 2)
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-1, 0, 1])
        axes.set_aspect("equal")
        axes.tick_params(labelsize=FONT - 1)
    figure.tight_layout()
    return figure


def smoothing_frames(
    count: int = 40, *, first: float = 20.0, last: float = 0.8, seed: int = 0
) -> list[Image]:
    """The contours as beta falls from ``first`` to ``last``, evenly on a log scale."""
    return [
        _picture(contour_figure(float(beta), seed=seed))
        for beta in np.geomspace(first, last, count)
    ]


def attack_frames(
    pixels: Sequence[Tensor], maps: Sequence[Tensor], target: Tensor, captions: Sequence[str]
) -> list[Image]:
    """The image, its change, its heat map and the target, frame by frame.

    Args:
        pixels: per frame the image, 0..1, [C, H, W]; the first is the original.
        maps: per frame its heat map, [H, W].
        target: the heat map aimed at, [H, W].
        captions: what each frame shows, such as ``step 10``.
    """
    brightest = bright([maps[0], target])
    frames = []
    for image, heat, caption in zip(pixels, maps, captions, strict=True):
        figure = new_figure(8.0, 2.35)
        figure.set_dpi(_DPI)
        one, two, three, four = figure.subplots(1, 4)
        show_photo(one, image, f"image, {caption}")
        show_photo(two, 0.5 + 10 * (image - pixels[0]), "its change, ten times")
        show_map(three, heat, brightest, "its explanation")
        show_map(four, target, brightest, "target")
        figure.tight_layout()
        frames.append(_picture(figure))
    return frames


def _picture(figure: Figure) -> Image:
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def save_gif(path: str | os.PathLike[str], frames: Sequence[Image], seconds: float = 4.0) -> None:
    """Write an endless GIF; the last frame stays for a second."""
    each = max(20, round(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [1000]
    # Pillow's own choice of 256 colours turns the green eyes of a cat brown.
    reduced = [frame.quantize(256, kmeans=1) for frame in frames]
    with atomic_path(path) as temporary:
        reduced[0].save(
            temporary, format="GIF", save_all=True, append_images=reduced[1:],
            duration=durations, loop=0, optimize=True,
        )  # fmt: skip


def _ffmpeg() -> Any:
    """The module imageio_ffmpeg, which brings or finds a program ffmpeg.

    Raises:
        OutputError: if either is missing.
    """
    try:
        module = importlib.import_module("imageio_ffmpeg")
        module.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise OutputError(
            "an MP4 needs ffmpeg: pip install imageio-ffmpeg, or write a .gif"
        ) from error
    return module


def save_mp4(path: str | os.PathLike[str], frames: Sequence[Image], seconds: float = 4.0) -> None:
    """Write an MP4 (H.264), by imageio-ffmpeg.

    Args:
        path: of the file.
        frames: of one size; a last odd column or row is cut off, for H.264 has none.
        seconds: how long it runs.

    Raises:
        OutputError: if imageio-ffmpeg is not installed or finds no ffmpeg, or the file cannot be
            written.
    """
    width, height = (side - side % 2 for side in frames[0].size)
    with atomic_path(path) as temporary:
        writer = _ffmpeg().write_frames(
            str(temporary),
            (width, height),
            fps=len(frames) / seconds,
            # Its default, 16, would stretch the frames to a multiple, and say so.
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-f", "mp4"],
        )
        writer.send(None)
        for frame in frames:
            writer.send(frame.crop((0, 0, width, height)).tobytes())
        writer.close()


def writer_for(path: Path) -> Callable[[str | os.PathLike[str], Sequence[Image], float], None]:
    """``save_gif`` or ``save_mp4``, by the suffix; to be called before the work begins.

    Raises:
        OutputError: if the suffix is another one, or ffmpeg is needed and missing.
    """
    kinds = {".gif": save_gif, ".mp4": save_mp4}
    kind = path.suffix.lower()
    if kind not in kinds:
        raise OutputError(f"'{path}' is neither .gif nor .mp4: choose one of these suffixes")
    if kind == ".mp4":
        _ffmpeg()
    return kinds[kind]
