"""Pieces of a page. Every text that comes from outside goes through ``escape``."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from trompe.report.figures import panel_figure
from trompe.report.gallery import Exhibit
from trompe.report.run_figures import FigureSet
from trompe.report.svg import inline_svg
from trompe.report.tables import Table, Value


def tag(name: str, text: str, **attributes: str) -> str:
    """An element with text that is escaped."""
    given = "".join(f' {k.rstrip("_")}="{escape(v)}"' for k, v in attributes.items())
    return f"<{name}{given}>{escape(text)}</{name}>"


def listed(texts: Iterable[str]) -> str:
    """An unordered list of texts."""
    return f"<ul>{''.join(tag('li', text) for text in texts)}</ul>"


def _cell(value: Value) -> str:
    if value is None:
        return '<td class="number" data-value="">&ndash;</td>'
    if isinstance(value, int | float):
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    return tag("td", value)


def table_html(table: Table, *, tall: bool = False) -> str:
    """A table that can be sorted by every column."""
    head = "".join(tag("th", name.replace("_", " "), scope="col") for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    caption = f'<caption class="soft">{escape(table.title)}</caption>'
    kind = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f'<table class="sortable">{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
    )


def figures_html(figures: FigureSet, prefix: str) -> str:
    """A set of panels under its title."""
    parts = [
        tag("h3", figures.title),
        tag("p", figures.text, class_="soft"),
        '<div class="panels">',
    ]
    for number, panel in enumerate(figures.panels):
        svg = inline_svg(panel_figure(panel), f"{prefix}-{figures.name}-{number}")
        parts.append(
            f'<figure><div role="img" aria-label="{escape(f"{panel.title}. {panel.describe}")}">'
            f"{svg}</div>{tag('figcaption', panel.title)}</figure>"
        )
    return "".join([*parts, "</div>"])


def _picture(uri: str, words: str) -> str:
    # The URIs are made here, of base64 letters.
    return f'<img src="{uri}" alt="{escape(words)}">'


def exhibit_html(one: Exhibit) -> str:
    """A cell with a slider between the original and the manipulated image and map."""
    row = one.row
    smoothing = "" if row.smoothing == "none" else f", {row.smoothing}"
    title = f"{row.image}: {row.method.replace('_', ' ')}{smoothing}"
    numbers = ", ".join(
        f"{words} {row.values[key]:.2f}"
        for words, key in (
            ("PCC to target", "map_target_pcc"),
            ("to original", "map_original_pcc"),
            ("image PSNR", "image_psnr"),
        )
        if key in row.values
    )
    marks = "".join(tag("span", flag, class_="flag") for flag in row.flags)
    label = f"Show more of the original or of the manipulated image of cell {row.id}"
    panes = (
        f'<div class="pane">{_picture(one.original, "original image")}'
        f"{_picture(one.manipulated, 'manipulated image')}</div>"
        f'<div class="pane">{_picture(one.map_original, "original explanation")}'
        f"{_picture(one.map_manipulated, 'manipulated explanation')}</div>"
    )
    others = "".join(
        f"<div>{_picture(uri, words)}{escape(words)}</div>"
        for uri, words in (
            (one.target, "target image"),
            (one.map_target, "target explanation"),
            (one.change, f"change, amplified {one.factor} times"),
        )
    )
    return (
        f'<figure class="exhibit">{tag("h3", title)}<div class="slider">{panes}'
        f'<input type="range" min="0" max="100" value="50" aria-label="{escape(label)}">'
        '<div class="ends"><span>← manipulated</span><span>original →</span></div></div>'
        f'<div class="others">{others}</div><figcaption>{escape(one.caption)} {escape(numbers)}. '
        f"Cell {row.id}, {escape(row.model)}. {marks}</figcaption></figure>"
    )
