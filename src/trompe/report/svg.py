"""Figures as part of a page: SVG whose ink follows the page's colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Matplotlib's black, which becomes the page's own colour of letters.
_INK = re.compile(r"#000000|(?<=[:\"' ])black(?=[;\"'])")


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element to be put into a page.

    Letters stay letters, black becomes the page's colour, the background is the page's, the size
    that of its container. All identifiers begin with ``name``, so that several go into one page.

    Args:
        figure: of matplotlib.
        name: different for each figure of the page; letters, digits and dashes.
    """
    import matplotlib

    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    stream = io.StringIO()
    quiet = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=quiet)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    # Styles of text are given as CSS; the letters of the page itself fit best.
    text = re.sub(r"font-family:[^;\"]+|font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
    text = text.replace("font-size: ;", "").replace('font-size: "', '"')
    return _INK.sub("currentColor", text)
