"""Whether a report to be signed says what follows from its run."""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime
from typing import Any

from trompe.audit import Run
from trompe.ordinary import read_ordinary
from trompe.report.audit_page import page
from trompe.report.for_audit import Statement, as_json, content
from trompe.report.verified import HOW, lacking

_PICTURE = re.compile("data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
_MOST = 1 << 24


def check_audit_numbers(run: Run, cells: int) -> list[str]:
    """Write the report anew and compare: all but the pictures and what only its author knows.

    Not known are the author's statements, the date, the name of the run's folder then, whether the
    run was sealed then, and the comparison with a run before hardening.

    Args:
        run: in which a check found no problem, and whose state the report is of.
        cells: that were checked.

    Returns:
        What does not agree, in words.
    """
    name = "audit-report.json"
    try:
        text = read_ordinary(run.folder / name, _MOST).decode()
        fresh = _written_anew(run, json.loads(text), cells)
        if text != as_json(fresh):
            return [f"{name} does not say what follows from the run"]
        name = "audit-report.html"
        shown = read_ordinary(run.folder / name, _MOST).decode()
        if _PICTURE.sub("", shown) != _PICTURE.sub("", page(run, fresh)):
            return [f"{name} does not say what follows from the run"]
    except Exception as error:  # they may hold anything
        return [f"{name} cannot be read ({type(error).__name__})"]
    return []


def _written_anew(run: Run, kept: dict[str, Any], cells: int) -> dict[str, Any]:
    sections = kept["sections"]
    again, system = sections["reproduction"], sections["system"]
    said = Statement(kept["author"], system["intended_use"], system["relied_on_by"])
    checked = {
        "cells": cells,
        "problems": [],
        "unsealed": again["verification"]["unsealed"],
        "how": HOW,
        **lacking(run),
    }
    began = shlex.split(again["command"])[3]  # trompe audit --output FOLDER
    fresh = content(
        run, said, datetime.fromisoformat(kept["date"]), verification=checked, folder=began
    )
    if "hardening" in sections["worst_case"]:
        fresh["sections"]["worst_case"]["hardening"] = sections["worst_case"]["hardening"]
    return fresh
