"""Which figures a run has: those of the paper, as far as its cells allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from trompe.audit import Run
from trompe.audit.results import Row
from trompe.errors import StoreError
from trompe.geometry.smoothed_method import Smoothing
from trompe.report.figures import Curve, Groups, Panel, draw_boxes, draw_curves, draw_scatter
from trompe.report.words import aimed

#: Cells whose histories are read for the curves, at most, per model and method.
MOST_CURVES = 100


@dataclass(frozen=True)
class FigureSet:
    """Panels that belong together.

    Args:
        name: for files and links.
        title: above them.
        text: what to look for, one or two sentences.
        panels: of one model.
    """

    name: str
    title: str
    text: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Measure:
    """How a metric is shown: its name in the store, in words, and its scale."""

    key: str
    words: str
    log: bool = False


MAPS = (
    Measure("map_target_mse", "MSE of the map to the target", log=True),
    Measure("map_target_ssim", "SSIM of the map and the target"),
    Measure("map_target_pcc", "PCC of the map and the target"),
)
IMAGES = (
    Measure("image_mse", "MSE of the images", log=True),
    Measure("image_ssim", "SSIM of the images"),
    Measure("image_pcc", "PCC of the images"),
)
OUTPUTS = (
    Measure("softmax_l2", "Change of the output (L2)", log=True),
    Measure("logit_l2", "Change of the logits (L2)", log=True),
    Measure("logit_change", "Change of the winning logit"),
    Measure("probability_change", "Change of the winning probability"),
)


def objective_measures(rows: Sequence[Row]) -> tuple[Measure, ...]:
    """What the objective of a run's attacks measures, by its own names, where it is not usual."""
    names = sorted({key for row in rows for key in row.values if key.startswith("objective_")})
    if not names:
        return ()
    words = {
        "objective_before": "Objective of the original image",
        "objective_after": "Objective of the manipulated image (lower is further)",
        "objective_noise": "Objective of noise of the same size",
    }
    return (
        Measure("map_original_pcc", "PCC of the map and the original one"),
        *(Measure(n, words.get(n, n.removeprefix("objective_").replace("_", " "))) for n in names),
    )


def series_name(row: Row, presets: int) -> str:
    """What distinguishes cells of one method: smoothing, and preset if there are several."""
    name = "plain" if row.smoothing is None else str(row.smoothing)
    return f"{name}, {row.preset}" if presets > 1 else name


def grouped(rows: Sequence[Row], key: str) -> Groups:
    """The values of a metric by method and smoothing."""
    presets = len({row.preset for row in rows})
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if key in row.values:
            series = groups.setdefault(row.method, {})
            series.setdefault(series_name(row, presets), []).append(row.values[key])
    return groups


def box_panels(rows: Sequence[Row], measures: Sequence[Measure]) -> tuple[Panel, ...]:
    """One panel of boxes per metric."""
    panels = []
    for measure in measures:
        groups = grouped(rows, measure.key)
        if not groups:  # as of the target, where nothing was aimed at
            continue
        medians = [
            f"{method} {name}: median {float(torch.tensor(values).median()):.3g}"
            for method, group in groups.items()
            for name, values in group.items()
        ]
        panels.append(
            Panel(
                measure.words,
                f"Box plots, or points. {'; '.join(medians)}.",
                partial(draw_boxes, groups=groups, log=measure.log),
            )
        )
    return tuple(panels)


def scatter_panels(rows: Sequence[Row], smoothing: Smoothing | None) -> tuple[Panel, ...]:
    """Per image: the attack on the smoothed explanation against that on the plain one."""
    plain = {(r.method, r.preset, r.pair): r for r in rows if r.smoothing is None}
    panels = []
    for measure in MAPS:
        points: dict[str, list[tuple[float, float]]] = {}
        below = total = 0
        for row in rows:
            other = plain.get((row.method, row.preset, row.pair))
            if row.smoothing != smoothing or other is None:
                continue
            if measure.key in row.values and measure.key in other.values:
                point = (other.values[measure.key], row.values[measure.key])
                points.setdefault(row.method, []).append(point)
                total += 1
                below += point[1] < point[0]
        if points:
            panels.append(
                Panel(
                    measure.words,
                    f"Scatter plot: {below} of {total} points lie below the diagonal.",
                    partial(
                        draw_scatter,
                        points=points,
                        across="attack on the plain explanation",
                        up=f"on {smoothing}",
                        log=measure.log,
                    ),
                )
            )
    return tuple(panels)


def recovery_panels(rows: Sequence[Row], betas: Sequence[float]) -> tuple[Panel, ...]:
    """Figure 4: explaining the manipulated image with ever smoother networks."""
    panels = []
    betas = sorted(betas)
    for method in dict.fromkeys(row.method for row in rows):
        chosen = [r for r in rows if r.method == method and r.smoothing is None]
        curves = {}
        for kind, words in (("original", "original map"), ("target", "target map")):
            keys = [f"beta_{beta:g}_{kind}_pcc" for beta in betas]
            values = [[r.values.get(k, float("nan")) for k in keys] for r in chosen]
            values = [row for row in values if any(v == v for v in row)]
            if values:
                curves[words] = Curve(betas, values)
        if curves:
            draw = partial(
                draw_curves,
                curves=curves,
                across="β (small: smooth)",
                up="PCC with the smoothed map",
                log_across=True,
            )
            words = "Curves: correlation of the smoothed map of the manipulated image, by beta."
            panels.append(Panel(method.replace("_", " "), words, draw))
    return tuple(panels)


def history_panels(run: Run, rows: Sequence[Row]) -> tuple[Panel, ...]:
    """Figure 6: images and maps over the iterations."""
    kinds = {
        "history_map_pcc": ("PCC of the map and the target", False),
        "history_map_mse": ("MSE of the map to the target", True),
        "history_image_mse": ("MSE of the images (normalised units)", True),
    }
    unseen = {f"history_{name}" for name in ("loss", "output_mse", "beta", "iteration")}
    found: dict[str, dict[str, list[list[float]]]] = {key: {} for key in kinds}
    steps: dict[str, list[float]] = {}
    for name, arrays in _histories(run, rows):
        iterations = arrays["history_iteration"].tolist()
        if steps.setdefault(name, iterations) == iterations:
            for key in sorted(arrays):
                if key.startswith("history_") and key not in unseen:
                    found.setdefault(key, {}).setdefault(name, []).append(arrays[key].tolist())
    panels = []
    for key in found:
        words, log = kinds.get(key, (key.removeprefix("history_").replace("_", " "), False))
        # The first step is the original image: its distance, 0, has no logarithm.
        begin = 1 if log else 0
        curves = {
            name: Curve(steps[name][begin:], [row[begin:] for row in values])
            for name, values in found[key].items()
            if len(steps[name]) > begin
        }
        if curves:
            draw = partial(draw_curves, curves=curves, across="iteration", up=words, log_up=log)
            panels.append(Panel(words, "Curves: medians over the images, by iteration.", draw))
    return tuple(panels)


def _histories(run: Run, rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    counts: dict[str, int] = {}
    presets = len({row.preset for row in rows})
    for row in rows:
        if row.smoothing is not None:
            continue
        name = row.method if presets == 1 else f"{row.method}, {row.preset}"
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= MOST_CURVES and row.arrays is not None:
            try:
                arrays = run.store.arrays.get(row.arrays)
            except StoreError:
                continue  # 'trompe verify' names damaged files
            if "history_iteration" in arrays:
                yield name, arrays


def figure_sets(run: Run, model: str) -> list[FigureSet]:
    """The figures of one model.

    Args:
        run: with cells that are done.
        model: as it is called in the run.
    """
    rows = [row for row in run.done if row.model == model]
    towards = any(map(aimed, rows))
    several = len({row.smoothing for row in rows}) > 1
    compare = " Colours: the plain explanation and the smoothed ones." if several else ""
    boxes = (
        "Boxes reach from the 25th to the 75th percentile, whiskers from the 10th to the 90th; "
        "fewer than five values are points."
    )
    sets = [
        FigureSet(
            "maps",
            f"Did the explanation {'become the target' if towards else 'change'}?",
            f"{'High' if towards else 'Low'} SSIM and PCC: the explanation was manipulated."
            f"{compare} {boxes}",
            box_panels(rows, (*MAPS, *objective_measures(rows))),
        ),
        FigureSet(
            "images",
            "Was the image changed?",
            f"SSIM and PCC near 1: nobody sees the change. {boxes}",
            box_panels(rows, IMAGES),
        ),
        FigureSet(
            "outputs",
            "Was the answer changed?",
            f"Near 0: the network's answer stayed. {boxes}",
            box_panels(rows, OUTPUTS),
        ),
    ]
    for smoothing in dict.fromkeys(filter(None, (r.smoothing for r in rows))):
        panels = scatter_panels(rows, smoothing)
        sets.append(
            FigureSet(
                f"scatter-{str(smoothing).replace('=', '-')}",
                f"What {smoothing} buys, image by image",
                "Each point is an image. Below the diagonal (MSE: above), the smoothed explanation "
                "was harder to manipulate.",
                panels,
            )
        )
    sets += [
        FigureSet(
            "recovery",
            "Does smoothing afterwards reveal the manipulation?",
            "The manipulated image, explained with a smoother network: the original explanation "
            "returns where its curve rises above that of the target.",
            recovery_panels(rows, run.settings.recovery),
        ),
        FigureSet(
            "history",
            "How the attack went",
            "Medians over the images, with the band from the 25th to the 75th percentile.",
            history_panels(run, rows),
        ),
    ]
    return [one for one in sets if one.panels]
