"""Pictures of signals [C, T] and volumes [C, D, H, W] with their relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trompe.metrics import linf, pcc, psnr
from trompe.report.attack_words import SCALE, kept_in_words
from trompe.report.style import (
    FONT,
    MAP_COLOURS,
    axes_at,
    bright,
    new_figure,
    panel,
    short,
    show_map,
    show_photo,
)
from trompe.types import AttackResult, InputSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: a signal's panel, a slice's panel, gap, title of two lines, caption.
_WIDE, _CHANNEL, _SLICE, _GAP, _TITLE, _CAPTION = 3.4, 0.7, 1.6, 0.1, 0.42, 0.5
#: Channels of a signal that are drawn; a caption says if there are more.
CHANNELS = 8


def show_signal(
    axes: Axes, signal: Tensor, heat: Tensor | None, brightest: float, title: str = ""
) -> None:
    """Draw the channels of a signal [C, T] one below the other, coloured by their heat [C, T]."""
    from matplotlib.collections import LineCollection

    lines = signal.detach().cpu().double().numpy()[:CHANNELS]
    spread = float(lines.max() - lines.min()) or 1.0
    steps = np.arange(lines.shape[1])
    for number, line in enumerate(lines):
        lifted = line - lines.mean() - 1.1 * spread * number
        if heat is None:
            axes.plot(steps, lifted, color="0.25", linewidth=0.8)
            continue
        axes.plot(steps, lifted, color="0.8", linewidth=0.6)
        ends = np.stack([steps, lifted], axis=1)
        pieces = np.stack([ends[:-1], ends[1:]], axis=1)
        shares = heat[number].detach().cpu().double().numpy()
        coloured = LineCollection(list(pieces), cmap=MAP_COLOURS, linewidths=1.6)
        coloured.set_array((shares[:-1] + shares[1:]) / 2)
        coloured.set_clim(0, brightest)
        axes.add_collection(coloured)
    axes.set_facecolor("0.93")
    axes.margins(0.02, 0.06)
    panel(axes, title)


def _similar(heat: Tensor, other: Tensor, name: str) -> str:
    return f"PCC {float(pcc(heat[None], other[None])):.2f} to {name}"


def _caption(result: AttackResult, index: int, pixels: Tensor, changed: Tensor) -> str:
    """What happened to the output and to the input, as shares of its range."""
    outputs = result.outputs
    kept = kept_in_words(bool(result.class_kept[index]), outputs.meaning)
    moved = float(torch.linalg.vector_norm(
        (outputs.probabilities(result.logits_adv) - outputs.probabilities(result.logits_original))[
            index
        ]
    ))  # fmt: skip
    ratio = float(psnr(pixels[None], changed[None]))
    largest = 100 * float(linf(pixels[None], changed[None]))
    return (
        f"Output: {kept}, {SCALE[outputs.meaning]} moved by {moved:.2g}   ·   "
        f"Input: PSNR {ratio:.0f} dB, largest change {largest:.2g} % of the range"
    )


def result_figure(
    result: AttackResult, space: InputSpace, labels: Sequence[str], index: int
) -> Figure:
    """One signal or volume of an attack; arguments as those of ``overview_figure``."""
    pixels, changed = space.to_pixels(torch.stack([result.x[index], result.x_adv[index]]))
    before, after = (
        result.outputs.said(logits[index], short(labels))
        for logits in (result.logits_original, result.logits_adv)
    )
    original, manipulated = result.map_original[index], result.map_adv[index]
    target = None if result.map_target is None else result.map_target[index]
    maps = [original, manipulated, *([] if target is None else [target])]
    caption = _caption(result, index, pixels, changed)
    aim, name = (original, "original") if target is None else (target, "target")
    inputs = {f"Original\n{before}": pixels, f"Manipulated\n{after}": changed}
    inputs["Change\non its own scale"] = changed - pixels
    heats = {
        f"Original explanation\n{_similar(original, aim, name) if target is not None else ''}": (
            original
        ),
        f"Manipulated explanation\n{_similar(manipulated, aim, name)}": manipulated,
    }
    if target is not None:
        heats["Target explanation\n"] = target
    if result.x.dim() == 3:
        return _signals(inputs, heats, bright(maps), caption)
    return _volumes(inputs, heats, bright([heat.sum(dim=0) for heat in maps]), caption)


def _signals(
    inputs: Mapping[str, Tensor], heats: Mapping[str, Tensor], brightest: float, caption: str
) -> Figure:
    """Above the signals, below the same coloured by their heat; the target's on the original."""
    signals = list(inputs.values())
    channels = signals[0].shape[0]
    height = _CHANNEL * min(channels, CHANNELS) + 0.2
    figure = new_figure(3 * (_WIDE + _GAP) + _GAP, 2 * (_TITLE + height) + _CAPTION)
    for column, (title, signal) in enumerate(inputs.items()):
        axes = axes_at(figure, _GAP + column * (_WIDE + _GAP), _TITLE, _WIDE, height)
        show_signal(axes, signal, None, brightest, title)
    for column, (title, heat) in enumerate(heats.items()):
        left = _GAP + column * (_WIDE + _GAP)
        axes = axes_at(figure, left, 2 * _TITLE + height, _WIDE, height)
        show_signal(axes, signals[column % 2], heat, brightest, title)
    if channels > CHANNELS:
        caption += f"\nThe first {CHANNELS} of {channels} channels."
    _write(figure, caption)
    return figure


def _volumes(
    inputs: Mapping[str, Tensor], heats: Mapping[str, Tensor], brightest: float, caption: str
) -> Figure:
    """The middle slices across each side, a row each; channels as their mean, heat as its sum."""
    sides = next(iter(inputs.values())).shape[1:]
    columns = len(inputs) + len(heats)
    heights = [_SLICE * _cut(torch.empty(sides), side).shape[0] / max(sides) for side in range(3)]
    widths = [_SLICE * _cut(torch.empty(sides), side).shape[1] / max(sides) for side in range(3)]
    figure = new_figure(
        columns * (_SLICE + _GAP) + _GAP, _TITLE + sum(heights) + 3 * _GAP + _CAPTION
    )
    top = _TITLE
    for side, (height, width) in enumerate(zip(heights, widths, strict=True)):
        for column, (title, one) in enumerate((*inputs.items(), *heats.items())):
            left = _GAP + column * (_SLICE + _GAP) + (_SLICE - width) / 2
            axes = axes_at(figure, left, top, width, height)
            title = "" if side else title
            if column >= len(inputs):
                show_map(axes, _cut(one.sum(dim=0), side), brightest, title)
                continue
            shown = one.mean(dim=0)
            if column == 2:
                shown = 0.5 + 0.5 * shown / shown.abs().max().clamp_min(1e-30)
            show_photo(axes, _cut(shown, side)[None], title)
        top += height + _GAP
    _write(figure, f"{caption}\n{slices_in_words(sides)}")
    return figure


def _cut(volume: Tensor, side: int) -> Tensor:
    """The middle slice of a volume [D, H, W] across one side."""
    return volume.select(side, volume.shape[side] // 2)


def slices_in_words(sides: Sequence[int]) -> str:
    """Which slices of a volume are drawn."""
    places = ", ".join(
        f"{name} {side // 2} of 0..{side - 1}" for name, side in zip("DHW", sides, strict=True)
    )
    return f"The middle slices across each side ({places}); the rest is not shown."


def _write(figure: Figure, caption: str) -> None:
    height = _CAPTION / 2 / figure.get_figheight()
    figure.text(0.5, height, caption, ha="center", va="center", fontsize=FONT)


def explained_signal(
    signal: Tensor, maps: Mapping[str, Sequence[Tensor]], captions: Sequence[str], title: str
) -> Figure:
    """A signal [C, T] coloured by its maps: a row per method, a column per caption."""
    height = _CHANNEL * min(len(signal), CHANNELS) + 0.2
    more = f"the first {CHANNELS} of {len(signal)} channels" if len(signal) > CHANNELS else ""
    title = ", ".join(part for part in (title, more) if part)
    figure = new_figure(
        len(captions) * (_WIDE + _GAP) + _GAP, len(maps) * (_TITLE + height) + _CAPTION
    )
    for row, (method, heats) in enumerate(maps.items()):
        top = _CAPTION + _TITLE / 2 + row * (_TITLE + height)
        for column, (heat, caption) in enumerate(zip(heats, captions, strict=True)):
            axes = axes_at(figure, _GAP + column * (_WIDE + _GAP), top, _WIDE, height)
            show_signal(axes, signal, heat, bright(heats), f"{method.replace('_', ' ')}, {caption}")
    figure.suptitle(title, fontsize=FONT + 2, y=1 - 0.05 / figure.get_figheight(), parse_math=False)
    return figure
