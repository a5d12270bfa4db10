"""The page of the report that an auditor signs."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from trompe.audit import Run
from trompe.report.certified import in_words
from trompe.report.lead import lead
from trompe.report.page import STYLE, templates


def page(run: Run, found: dict[str, Any]) -> str:
    """The report to be signed, for a browser's print.

    Args:
        run: of which one attack is shown.
        found: what ``audit-report.json`` says.
    """
    first, problems = lead(run)
    return (
        templates()
        .get_template("page.audit.html")
        .render(
            report=found,
            parts=found["sections"],
            certified=[in_words(one) for one in found["sections"]["certified"].get("shares", [])],
            lead=first,
            problems=problems,
            style=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704  # written here
        )
    )
