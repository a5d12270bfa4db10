"""Tables of a run, and the files they are written to: CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trompe.atomic import atomic_path
from trompe.audit import Run
from trompe.report.words import fooled, median

Value = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Columns with their names, and rows.

    Args:
        name: for files.
        title: above it.
        columns: names.
        rows: values, one per column.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


_OBJECTIVE = (
    ("objective before", "objective_before"),
    ("after", "objective_after"),
    ("with noise", "objective_noise"),
)
"""Of runs whose objective is not the usual one; lower is further."""

_MEDIANS = (
    ("PCC to target", "map_target_pcc"),
    ("SSIM to target", "map_target_ssim"),
    ("PCC to original", "map_original_pcc"),
    ("PCC of noise to target", "noise_target_pcc"),
    ("image SSIM", "image_ssim"),
    ("image PSNR, dB", "image_psnr"),
    ("output change", "softmax_l2"),
    ("seconds", "seconds"),
)


def summary_table(run: Run) -> Table:
    """Medians by model, method, smoothing and preset."""
    kinds = list(dict.fromkeys(row.kind for row in run.done))
    medians = _MEDIANS if run.settings.usual_objective else (*_OBJECTIVE, *_MEDIANS)
    rows: list[tuple[Value, ...]] = []
    for kind in kinds:
        cells = [row for row in run.done if row.kind == kind]
        count = len(cells)
        rows.append(
            (
                *kind,
                count,
                round(100 * sum(r.values.get("class_kept", 0) for r in cells) / count, 1),
                round(100 * sum(fooled(r) for r in cells) / count, 1),
                *(median(cells, key) for _, key in medians),
                sum(bool(r.flags) for r in cells),
            )
        )
    columns = (
        *("model", "method", "smoothing", "preset", "cells", "answer kept, %", "manipulated, %"),
        *(name for name, _ in medians),
        "flagged",
    )
    return Table("summary", "Medians", columns, tuple(rows))


_CELL = (
    "map_target_pcc",
    "map_target_ssim",
    "map_original_pcc",
    "noise_target_pcc",
    "image_ssim",
    "image_psnr",
    "softmax_l2",
    "class_kept",
)


def cell_table(run: Run, keys: Sequence[str] = _CELL) -> Table:
    """Every cell, with some of its metrics, its flags, or why it failed."""
    rows = tuple(
        (
            row.id,
            *row.kind,
            *row.pair,
            *(row.values.get(key) for key in keys),
            "; ".join(row.flags),
            row.message or "",
        )
        for row in run.rows
    )
    columns = ("cell", "model", "method", "smoothing", "preset", "image", "target", *keys)
    return Table("cells", "All cells", (*columns, "flags", "failed because"), rows)


def metric_table(run: Run) -> Table:
    """Every cell with all its metrics, for files."""
    keys = sorted({key for row in run.rows for key in row.values})
    return cell_table(run, keys)


def neutral(value: Value) -> Value:
    """A value for a CSV file: text that a spreadsheet would take for a formula gets an apostrophe.

    Numbers stay numbers, negative ones too.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # which Python does not quote, and readers end a line at
    return f"'{text}" if text.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\n") else text


def as_csv(table: Table) -> str:
    """The table as CSV; undefined numbers are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([neutral(v) for v in row] for row in table.rows)
    return stream.getvalue()


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _latex(value: Value) -> str:
    if value is None:
        return "--"
    if isinstance(value, float):
        return f"{value:.3g}"
    return re.sub(r"[\\&%$#_{}~^]", lambda m: _SPECIAL.get(m[0], f"\\{m[0]}"), str(value))


def as_latex(table: Table) -> str:
    """The table as a LaTeX tabular of the package booktabs."""
    numeric = [
        all(isinstance(row[i], int | float | None) for row in table.rows)
        for i in range(len(table.columns))
    ]
    lines = [
        rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}",
        r"\toprule",
        " & ".join(_latex(name) for name in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(_latex(value) for value in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
