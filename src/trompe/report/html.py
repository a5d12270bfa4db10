"""The report of a run: one HTML file that needs nothing else, and its figures and tables."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import trompe
from trompe.atomic import atomic_path
from trompe.audit import Run
from trompe.audit.flags import MEANING
from trompe.audit.leaderboard import EPSILON, TAU, attack_in_record, leaderboard
from trompe.errors import UsageError
from trompe.report.advice import advice, agreement_in
from trompe.report.figures import Panel, joint_figure, panel_figure
from trompe.report.files import prepare_output, safe_names
from trompe.report.gallery import gallery
from trompe.report.leaderboard_files import write_leaderboard
from trompe.report.manifest import write_manifest
from trompe.report.run_figures import FigureSet, figure_sets
from trompe.report.svg import inline_svg
from trompe.report.tables import (
    Table,
    as_csv,
    as_latex,
    cell_table,
    metric_table,
    summary_table,
    write_text,
)
from trompe.report.words import share, summary, verdict
from trompe.robustness.evaluation import STATUS

_HERE = Path(__file__).parent
#: Nothing may be fetched, whatever a name in the data looks like.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
_PARTS = ("summary", "trust", "tables", "figures", "gallery", "about")


def _shown(value: float | int) -> str:
    """A number as a table of the page shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _drawing(panel: Panel, name: str) -> Markup:
    # Safe: an SVG made here, whose texts matplotlib escapes.
    return Markup(inline_svg(panel_figure(panel), name))  # noqa: S704


def _templates() -> Environment:
    """The page's templates, which escape whatever is put into them."""
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"shown": _shown, "drawing": _drawing}
    return made


def _verdicts(run: Run) -> list[dict[str, str]]:
    """Per model and method: how many plain explanations were manipulated."""
    found = []
    for kind in dict.fromkeys((row.model, row.method) for row in run.rows):
        rows = [r for r in run.rows if (r.model, r.method) == kind and r.smoothing is None]
        if rows:
            words = f"{kind[1].replace('_', ' ')} on {kind[0]}: {verdict(rows)}"
            found.append({"share": f"{100 * share(rows):.0f}", "words": words})
    return found


def _counted(run: Run) -> str:
    """How many cells and images there are, and what was left out."""
    state = run.status
    skipped = [f"{count} that {model} classifies wrongly" for model, count in state.wrong.items()]
    if state.corrupt:
        skipped.append(f"{state.corrupt} that cannot be read")
    left_out = f" Images left out: {', '.join(skipped)}." if skipped else ""
    open_cells = f" {state.open} cells are still open." if state.open else ""
    return (
        f"{state.done} cells done, {state.errors} failed, {len(run.done)} judged on the "
        f"original network.{open_cells}{left_out}"
    )


def numbers_html(run: Run) -> str:
    """The part of the page that says in words and tables what follows from the run's numbers."""
    raised = Counter(flag for row in run.done for flag in row.flags)
    failed = Counter((row.method, row.message or "") for row in run.rows if row.message)
    return (
        _templates()
        .get_template("page.numbers.html")
        .render(
            verdicts=_verdicts(run),
            attack=attack_in_record(run.record),
            summary=summary(run.rows),
            advice=advice(run.rows, agreement_in(run)),
            counted=_counted(run),
            done=len(run.done),
            flags=[(flag, count, MEANING.get(flag, "")) for flag, count in raised.most_common()],
            failed=[f"{method}, {n} cells: {text}" for (method, text), n in failed.items()],
            tables=[summary_table(run), leaderboard_table(run), cell_table(run)],
        )
    )


def leaderboard_table(run: Run) -> Table:
    """Robust-explanation accuracy by model, method and defence."""
    rows = tuple(
        (
            entry["model"],
            entry["method"],
            entry["defence"],
            entry["images"],
            100 * entry["robust_explanation_accuracy"],
            *(100 * end for end in entry["interval"]),
            *(entry["status"][word] for word in STATUS),
            100 * entry["robust_explanation_accuracy_any_radius"],
        )
        for entry in leaderboard(run)
    )
    columns = (
        *("model", "method", "defence", "images", "robust, %", "from, %", "to, %"),
        *STATUS,
        "robust at any size, %",
    )
    title = (
        f"Robust-explanation accuracy: of all images those that keep a map correlation of {TAU} "
        f"under every attack that changes no pixel by more than {255 * EPSILON:.0f}/255 and keeps "
        "the class, with the 95 % interval; an upper bound"
    )
    return Table("leaderboard", title, columns, rows)


def _about(run: Run) -> str:
    began = run.store.get("began")
    when = "" if began is None else f"{datetime.fromtimestamp(float(began), timezone.utc):%Y-%m-%d}"
    facts = {k: v for k, v in run.record.items() if v is not None}
    return json.dumps({"begun": when, "settings": facts, "software": run.versions}, indent=2)


def page(run: Run, sets: dict[str, list[FigureSet]], *, most: int = 12) -> str:
    """The whole report as HTML.

    Args:
        run: with cells that are done.
        sets: the figures of each model.
        most: cells in the gallery.
    """
    shown, problems = gallery(run, most)
    models = ", ".join(dict.fromkeys(row.model for row in run.done))
    return (
        _templates()
        .get_template("page.html")
        .render(
            title=f"Can the explanations of {models} be trusted?",
            policy=_POLICY,
            links=_PARTS,
            # Safe: written here, or escaped already.
            style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704
            script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704
            numbers=Markup(numbers_html(run)),  # noqa: S704
            drawn=sets,
            shown=shown,
            problems=problems,
            about=_about(run),
            digest=run.digest,
            version=trompe.__version__,
        )
    )


def table_files(run: Run) -> dict[str, str]:
    """The files of tables, by name."""
    found = {}
    for table in (summary_table(run), leaderboard_table(run), metric_table(run)):
        found[f"{table.name}.csv"] = as_csv(table)
        if table.name != "cells":
            found[f"{table.name}.tex"] = as_latex(table)
    return found


def write_report(run: Run, output: str | Path, *, most: int = 12) -> Path:
    """Write ``report.html``, ``figures/``, ``tables/``, ``leaderboard/`` and ``report.json``.

    The last names the run's digest and the checksum of each file. Nothing is written elsewhere.

    Args:
        run: with cells that are done.
        output: folder; made if it is not there.
        most: cells in the gallery.

    Returns:
        Where the page lies.

    Raises:
        UsageError: if no cell is done yet.
        StoreError: if the run is not as it was entered.
        OutputError: if a file cannot be written.
    """
    if not run.done:
        raise UsageError(f"'{run.folder}' has no finished cell: there is nothing to report")
    run.store.check_chain()
    folder = prepare_output(output)
    models = list(dict.fromkeys(row.model for row in run.done))
    sets = {model: figure_sets(run, model) for model in models}
    path = folder / "report.html"
    write_text(path, page(run, sets, most=most))
    drawings = prepare_output(folder / "figures")
    for model, name in zip(models, safe_names(models), strict=True):
        for one in sets[model]:
            figure = joint_figure(one.panels)
            for kind in ("pdf", "png"):
                metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
                with atomic_path(drawings / f"{name}-{one.name}.{kind}") as temporary:
                    figure.savefig(temporary, format=kind, metadata=metadata)
    tables = prepare_output(folder / "tables")
    for name, text in table_files(run).items():
        write_text(tables / name, text)
    write_leaderboard(run, None if folder.resolve() == run.folder.resolve() else folder)
    write_manifest(run, folder)
    return path
