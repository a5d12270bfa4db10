"""Whether the report in a run's folder says what follows from the run: all but its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trompe.audit import Run
from trompe.ordinary import read_ordinary
from trompe.report.html import all_figure_sets, named_sets, page, table_files
from trompe.report.manifest import REPORT
from trompe.report.run_figures import FigureSet

_PICTURE = re.compile("data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
_DRAWING = re.compile(r"<svg.*?</svg>\s*", re.DOTALL)
#: What a drawing of figures has no use for, and what could show or do anything.
_FOREIGN = re.compile(r"<(script|foreignObject|iframe|a|animate|set)\b|<[^>]*\son\w+\s*=", re.I)
_HARDENING = re.compile(r'<h2 id="hardening">.*?</code>\.</p>\n', re.DOTALL)
_LINK = '<li><a href="#hardening">Hardening</a></li>'
_MOST = 1 << 26

Sets = dict[str, list[FigureSet]]


def check_report(run: Run) -> list[str]:
    """Write the report anew, without its pictures, and compare.

    Not known, and taken as they are, are the author, the number of cells in the gallery, the name
    of the run's folder then and the comparison with a run before hardening.

    Args:
        run: in which a check found no problem, and whose state the report is of.

    Returns:
        What does not agree, in words.
    """
    folder = run.folder
    try:
        manifest = json.loads(read_ordinary(folder / REPORT.name, 1 << 20))
        if "written" not in manifest:
            return [f"'{REPORT.name}' is of an earlier version: write the report anew"]
        written = manifest["written"]
        shown = read_ordinary(folder / "report.html", _MOST).decode()
        sets = all_figure_sets(run)
        return [*_page(run, sets, written, shown), *_others(run, sets, manifest["files"], written)]
    except Exception as error:  # they may hold anything
        return [f"the report cannot be read ({type(error).__name__}: {error})"]


def _page(run: Run, sets: Sets, written: dict[str, Any], shown: str) -> list[str]:
    fresh = page(
        run,
        sets,
        most=int(written["most"]),
        author=written["author"],
        folder=written["folder"],
        draw=False,
    )
    if any(_FOREIGN.search(one) for one in _DRAWING.findall(shown)):
        return ["report.html has drawings that trompe does not make"]
    if written["before"] is not None:
        shown = _HARDENING.sub("", shown, count=1).replace(_LINK, "", 1)
    if _bare(shown) != _bare(fresh):
        return ["report.html does not say what follows from the run"]
    return []


def _bare(text: str) -> str:
    """A page without its pictures, and without blanks that follow from what was left out."""
    return "\n".join(_DRAWING.sub("", _PICTURE.sub("", text)).split())


def _others(run: Run, sets: Sets, files: dict[str, str], written: dict[str, Any]) -> list[str]:
    """Whether the tables and figures are those that there must be."""
    problems, tables = [], table_files(run)
    expected = {"report.html", *(f"tables/{name}" for name in tables)}
    for name, text in tables.items():
        if read_ordinary(run.folder / Path("tables", name)).decode() != text:
            problems.append(f"tables/{name} does not say what follows from the run")
    for name, _ in named_sets(sets):
        expected |= {f"figures/{name}.pdf", f"figures/{name}.png"}
    if written["before"] is not None:
        expected |= {"tables/hardening.csv", "tables/hardening.tex"}
    for name in sorted(expected ^ set(files)):
        problems.append(f"{name} is {'missing' if name in expected else 'nothing of the report'}")
    return problems
