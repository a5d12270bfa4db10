"""The report of a run: one HTML file that needs nothing else, and its figures and tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

import trompe
from trompe.atomic import atomic_path
from trompe.audit import Run
from trompe.audit.flags import MEANING
from trompe.audit.leaderboard import EPSILON, TAU, attack_in_record, leaderboard
from trompe.audit.results import Row
from trompe.errors import UsageError
from trompe.report.advice import advice, agreement_in
from trompe.report.before_after import BeforeAfter, before_after
from trompe.report.certified import certified_sentences
from trompe.report.figures import joint_figure
from trompe.report.files import prepare_output, safe_names
from trompe.report.gallery import gallery
from trompe.report.lead import lead, verdicts
from trompe.report.leaderboard_files import write_leaderboard
from trompe.report.manifest import write_manifest
from trompe.report.page import SCRIPT, STYLE, templates
from trompe.report.run_figures import FigureSet, figure_sets
from trompe.report.settings_text import begun, settings_text
from trompe.report.tables import (
    Table,
    as_csv,
    as_latex,
    cell_table,
    metric_table,
    summary_table,
    write_text,
)
from trompe.report.words import summary
from trompe.robustness.doubts import MEANING as OF_SEARCHES
from trompe.robustness.evaluation import STATUS

LIMITS = (
    "What was found is possible; what was not found is not thereby impossible: another attack may "
    "find it ('trompe robustness' looks for the worst case, 'trompe certify' bounds it).",
    "The numbers speak of images like these, this network and these methods, and of an attacker "
    "who knows the network.",
    "Whether the manipulation outlives a file format or a camera was not tested here.",
)
"""What every run leaves open, in plain words."""

_PARTS = ("summary", "trust", "tables", "figures", "gallery", "about")


def _done(run: Run) -> list[Row]:
    """The attacks and searches that did not fail."""
    return [row for row in (*run.rows, *run.searches) if row.message is None]


def _counted(run: Run) -> str:
    """How many cells and images there are, and what was left out."""
    state = run.status
    skipped = [f"{count} that {model} classifies wrongly" for model, count in state.wrong.items()]
    if state.corrupt:
        skipped.append(f"{state.corrupt} that cannot be read")
    left_out = f" Images left out: {', '.join(skipped)}." if skipped else ""
    open_cells = f" {state.open} cells are still open." if state.open else ""
    return (
        f"{state.done} cells done, {state.errors} failed, {len(_done(run))} judged on the "
        f"original network.{open_cells}{left_out}"
    )


def numbers_html(run: Run) -> str:
    """The part of the page that says in words and tables what follows from the run's numbers."""
    raised = Counter(flag for row in _done(run) for flag in row.flags)
    failed = Counter((row.method, row.message or "") for row in run.by_purpose if row.message)
    meaning = {**OF_SEARCHES, **MEANING}
    return (
        templates()
        .get_template("page.numbers.html")
        .render(
            verdicts=verdicts(run),
            certified=certified_sentences(run),
            attack=attack_in_record(run.record),
            summary=summary(run.rows),
            advice=advice(run.rows, agreement_in(run), run.searches),
            limits=LIMITS,
            counted=_counted(run),
            done=len(_done(run)),
            flags=[(flag, count, meaning.get(flag, "")) for flag, count in raised.most_common()],
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
            *_of_search(entry),
            *_certified(entry),
            100 * entry["robust_explanation_accuracy_any_radius"],
        )
        for entry in leaderboard(run)
    )
    columns = (
        *("model", "method", "defence", "images", "robust, %", "from, %", "to, %"),
        *STATUS,
        *(() if run.settings.worst_case is None else ("unreadable", "worst PCC, mean")),
        *(() if run.settings.certify is None else _OF_CERTIFICATES),
        "robust at any size, %",
    )
    budget = run.settings.worst_case
    title = (
        f"Robust-explanation accuracy: of all images those that keep a map correlation of {TAU} "
        f"under every attack that changes no pixel by more than {255 * EPSILON:.0f}/255 and keeps "
        "the answer, with the 95 % interval; an upper bound"
    )
    if budget is not None:
        title += f"; the worst case was looked for with a budget of {budget:g}"
    if (asked := run.settings.certification) is not None:
        title += (
            f"; certified: the smoothed map (noise {asked.sigma:g}) keeps a correlation of {TAU} "
            f"and the answer, where it is a decision, stays under every change smaller than "
            f"{asked.radius:g} (l2, pixel units), void: nothing is proved"
        )
    return Table("leaderboard", title, columns, rows)


def _of_search(entry: dict[str, Any]) -> tuple[Any, ...]:
    """Images that cannot be read, and the mean of the worst correlations, where it was looked."""
    if "worst_case" not in entry:
        return ()
    return (entry["unreadable"], entry["worst_case"]["mean_pcc"])


_OF_CERTIFICATES = (
    *("certified, of", "certified, %", "certified from, %", "certified to, %", "void"),
)


def _certified(entry: dict[str, Any]) -> tuple[Any, ...]:
    """The certified share with its interval, and how many bounds are void, where there are any."""
    if (one := entry.get("certified")) is None:
        return ()
    value = None if one["share"] is None else 100 * one["share"]
    return (one["images"], value, *(100 * end for end in one["interval"]), one["outcomes"]["void"])


def _head(run: Run) -> list[str]:
    """Date, data, networks with the checksum of their weights, and version, in short sentences."""
    found = [f"Audit of {begun(run)}."] if begun(run) else []
    found.append(f"Images: {run.record.get('images', run.settings.images)}.")
    for spec in run.settings.models:
        weights = run.facts(spec.key)["weights_of"].get(spec.key)
        if weights is not None:
            short = f"the SHA-256 of its weights begins with {weights[:16]}"
            found.append(f"Network: {spec.key}; {short}.")
    return [*found, f"trompe {trompe.__version__}."]


def page(
    run: Run,
    sets: dict[str, list[FigureSet]],
    *,
    most: int = 12,
    author: str | None = None,
    hardening: BeforeAfter | None = None,
    folder: str | None = None,
    draw: bool = True,
) -> str:
    """The whole report as HTML.

    Args:
        run: with cells that are done.
        sets: the figures of each model.
        most: cells in the gallery.
        author: named at the top.
        hardening: what sets the run apart from one of the network before, if that is known.
        folder: what the run's folder is called in the command; its name if not given.
        draw: whether the figures are drawn; else empty ones stand in their places.
    """
    first, problems = lead(run)
    shown, others = gallery(run, most)
    problems = list(dict.fromkeys([*problems, *others]))
    models = ", ".join(dict.fromkeys(row.model for row in run.done))
    return (
        templates(draw=draw)
        .get_template("page.html")
        .render(
            title=f"Can the explanations of {models} be trusted?",
            links=_PARTS if hardening is None else ("hardening", *_PARTS),
            hardening=hardening,
            # Safe: written here, or escaped already.
            style=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704
            script=Markup(SCRIPT.read_text(encoding="utf-8")),  # noqa: S704
            numbers=Markup(numbers_html(run)),  # noqa: S704
            lead=first,
            author=author,
            facts=_head(run),
            drawn=sets,
            shown=shown,
            problems=problems,
            about=settings_text(run, folder),
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


def all_figure_sets(run: Run) -> dict[str, list[FigureSet]]:
    """The figures of each model of which something is known."""
    return {model: figure_sets(run, model) for model in dict.fromkeys(r.model for r in run.done)}


def named_sets(sets: dict[str, list[FigureSet]]) -> list[tuple[str, FigureSet]]:
    """The figures of each model with the names of their files, without the ending."""
    return [
        (f"{name}-{one.name}", one)
        for model, name in zip(sets, safe_names(list(sets)), strict=True)
        for one in sets[model]
    ]


def write_report(
    run: Run,
    output: str | Path,
    *,
    most: int = 12,
    author: str | None = None,
    before: Run | None = None,
) -> Path:
    """Write ``report.html``, ``figures/``, ``tables/``, ``leaderboard/`` and ``report.json``.

    The last names the run's digest and the checksum of each file. Nothing is written elsewhere.

    Args:
        run: with cells that are done.
        output: folder; made if it is not there.
        most: cells in the gallery.
        author: who answers for the report, if somebody does.
        before: the same audit of the network before it was hardened, if the page shall compare.

    Returns:
        Where the page lies.

    Raises:
        UsageError: if no cell is done yet, or the run before is no like audit.
        StoreError: if the run is not as it was entered.
        OutputError: if a file cannot be written.
    """
    if not run.done:
        raise UsageError(f"'{run.folder}' has no finished cell: there is nothing to report")
    run.store.check_chain()
    hardening = None if before is None else before_after(before, run)
    folder = prepare_output(output)
    sets = all_figure_sets(run)
    path = folder / "report.html"
    write_text(path, page(run, sets, most=most, author=author, hardening=hardening))
    drawings = prepare_output(folder / "figures")
    for name, one in named_sets(sets):
        figure = joint_figure(one.panels)
        for kind in ("pdf", "png"):
            metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
            with atomic_path(drawings / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    tables = prepare_output(folder / "tables")
    for name, text in table_files(run).items():
        write_text(tables / name, text)
    if hardening is not None:
        write_text(tables / "hardening.csv", as_csv(hardening.table))
        write_text(tables / "hardening.tex", as_latex(hardening.table))
    write_leaderboard(run, None if folder.resolve() == run.folder.resolve() else folder)
    written = {"most": most, "author": author, "folder": run.folder.name}
    written["before"] = None if before is None else before.digest
    write_manifest(run, folder, written=written)
    return path
