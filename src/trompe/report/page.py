"""What the pages of reports share: templates that escape, and a style that prints."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trompe.report.figures import Panel, panel_figure
from trompe.report.svg import inline_svg

_HERE = Path(__file__).parent
STYLE, SCRIPT = _HERE / "page.css", _HERE / "page.js"
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing may be fetched, whatever a name in the data looks like."""


def _shown(value: float | int) -> str:
    """A number as a table of the page shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _drawing(panel: Panel, name: str) -> Markup:
    # Safe: an SVG made here, whose texts matplotlib escapes.
    return Markup(inline_svg(panel_figure(panel), name))  # noqa: S704


def _no_drawing(_panel: Panel, _name: str) -> Markup:
    return Markup("<svg></svg>")


def templates(*, draw: bool = True) -> Environment:
    """The pages' templates, which escape whatever is put into them.

    Args:
        draw: whether figures are drawn; else empty ones stand in their places.
    """
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"shown": _shown, "drawing": _drawing if draw else _no_drawing}
    made.globals["policy"] = POLICY
    return made
