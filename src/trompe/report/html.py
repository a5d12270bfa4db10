"""The report of a run: one HTML file that needs nothing else, and its figures and tables."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from trompe.atomic import atomic_path
from trompe.audit import Run
from trompe.audit.flags import MEANING
from trompe.audit.leaderboard import EPSILON, TAU, leaderboard
from trompe.errors import UsageError
from trompe.report.figures import joint_figure
from trompe.report.files import prepare_output, safe_names
from trompe.report.gallery import gallery
from trompe.report.html_parts import exhibit_html, figures_html, listed, table_html, tag
from trompe.report.run_figures import FigureSet, figure_sets
from trompe.report.tables import (
    Table,
    as_csv,
    as_latex,
    cell_table,
    metric_table,
    summary_table,
    write_text,
)
from trompe.report.words import advice, share, summary, verdict

_HERE = Path(__file__).parent
#: Nothing may be fetched, whatever a name in the data looks like.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def _verdicts(run: Run) -> str:
    """A card per model and method: how many plain explanations were manipulated."""
    cards = []
    for kind in dict.fromkeys((row.model, row.method) for row in run.done):
        rows = [r for r in run.done if (r.model, r.method) == kind and r.smoothing == "none"]
        if rows:
            words = f"{kind[1].replace('_', ' ')} on {kind[0]}: {verdict(rows)}"
            cards.append(f"<li><strong>{100 * share(rows):.0f} %</strong>{escape(words)}</li>")
    return f'<ul class="verdicts">{"".join(cards)}</ul>' if cards else ""


def _summary(run: Run) -> str:
    state = run.status
    parts = [tag("h2", "Summary", id="summary")]
    parts.append(
        "<p>How often an imperceptible change of the image made the explanation another one, "
        "while the network's answer stayed:</p>"
    )
    parts.append(_verdicts(run))
    several = len(run.settings.models) > 1
    for model, sentences in summary(run.done).items():
        if several:
            parts.append(tag("h3", model))
        parts.append(listed(sentences))
    if found := advice(run.done):
        parts += [tag("h3", "What to do"), listed(found)]
    skipped = [f"{count} that {model} classifies wrongly" for model, count in state.wrong.items()]
    if state.corrupt:
        skipped.append(f"{state.corrupt} that cannot be read")
    left_out = f" Images left out: {', '.join(skipped)}." if skipped else ""
    open_cells = f" {state.open} cells are still open." if state.open else ""
    parts.append(
        tag(
            "p",
            f"{state.done} cells done, {state.errors} failed, {len(run.done)} judged on the "
            f"original network.{open_cells}{left_out}",
            class_="soft",
        )
    )
    return "".join(parts)


def _trust(run: Run) -> str:
    """Flags and errors, with what they mean."""
    raised = Counter(flag for row in run.done for flag in row.flags)
    parts = [tag("h2", "Can these results be trusted?", id="trust")]
    if not raised:
        parts.append(tag("p", "No result carries a flag."))
    else:
        parts.append("<dl>")
        for flag, count in raised.most_common():
            parts.append(f"<dt>{tag('span', flag, class_='flag')} {count} of {len(run.done)}</dt>")
            parts.append(tag("dd", MEANING.get(flag, "")))
        parts.append("</dl>")
    failed = Counter((row.method, row.message or "") for row in run.rows if row.message)
    if failed:
        parts.append(tag("h3", "Cells that failed"))
        parts.append(listed(f"{method}, {n} cells: {text}" for (method, text), n in failed.items()))
    return "".join(parts)


def leaderboard_table(run: Run) -> Table:
    """Robust-explanation accuracy by model, method and defence."""
    rows = tuple(
        (
            entry["model"],
            entry["method"],
            entry["defence"],
            entry["images"],
            100 * entry["robust_explanation_accuracy"],
            100 * entry["robust_explanation_accuracy_any_radius"],
        )
        for entry in leaderboard(run)
    )
    columns = ("model", "method", "defence", "images", "robust, %", "robust at any size, %")
    title = (
        f"Robust-explanation accuracy: images that keep their class and a map correlation of {TAU} "
        f"under every attack that changes no pixel by more than {255 * EPSILON:.0f}/255"
    )
    return Table("leaderboard", title, columns, rows)


def _about(run: Run) -> str:
    began = run.store.get("began")
    when = "" if began is None else f"{datetime.fromtimestamp(float(began), timezone.utc):%Y-%m-%d}"
    facts = {k: v for k, v in run.record.items() if v is not None}
    text = json.dumps({"begun": when, "settings": facts, "software": run.versions}, indent=2)
    return (
        f"{tag('h2', 'How this was made', id='about')}<details><summary>Settings and software"
        f'</summary><pre class="scroll">{escape(text)}</pre></details>'
    )


def page(run: Run, sets: dict[str, list[FigureSet]], *, most: int = 12) -> str:
    """The whole report as HTML.

    Args:
        run: with cells that are done.
        sets: the figures of each model.
        most: cells in the gallery.
    """
    shown, problems = gallery(run, most)
    figures = [tag("h2", "Figures", id="figures")]
    for number, (model, some) in enumerate(sets.items()):
        if len(sets) > 1:
            figures.append(tag("h3", f"Model: {model}"))
        figures += [figures_html(one, f"m{number}") for one in some]
    parts = [
        _summary(run),
        _trust(run),
        *figures,
        tag("h2", "Gallery", id="gallery"),
        "<p>Move a slider, with the mouse or the arrow keys, from the manipulated image and "
        "explanation to the original ones. Of every kind the best, a median and the worst "
        "attack.</p>",
        listed(problems) if problems else "",
        f'<div class="gallery">{"".join(map(exhibit_html, shown))}</div>',
        tag("h2", "Tables", id="tables"),
        "<p>Choose a column's name to sort by it.</p>",
        table_html(summary_table(run)),
        "<p></p>",
        table_html(leaderboard_table(run)),
        "<p></p>",
        table_html(cell_table(run), tall=True),
        _about(run),
    ]
    links = ("summary", "trust", "figures", "gallery", "tables", "about")
    nav = "".join(f'<li><a href="#{link}">{link.capitalize()}</a></li>' for link in links)
    models = ", ".join(dict.fromkeys(row.model for row in run.done))
    title = f"Can the explanations of {models} be trusted?"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{tag("title", title)}<link rel="icon" href="data:,">'
        f"<style>{(_HERE / 'page.css').read_text(encoding='utf-8')}</style></head><body>"
        '<a class="skip" href="#summary">Skip to the summary</a>'
        f'<header>{tag("h1", title)}</header><nav aria-label="Parts"><ul>{nav}</ul></nav>'
        f"<main>{''.join(parts)}</main>"
        f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def write_report(run: Run, output: str | Path, *, most: int = 12) -> Path:
    """Write ``report.html``, ``figures/``, ``tables/`` and the leaderboard's JSON files.

    The leaderboard's files go into the run's own folder, where ``trompe verify`` checks them.

    Args:
        run: with cells that are done.
        output: folder; made if it is not there.
        most: cells in the gallery.

    Returns:
        Where the page lies.

    Raises:
        UsageError: if no cell is done yet.
        OutputError: if a file cannot be written.
    """
    if not run.done:
        raise UsageError(f"'{run.folder}' has no finished cell: there is nothing to report")
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
    for table in (summary_table(run), leaderboard_table(run), metric_table(run)):
        write_text(tables / f"{table.name}.csv", as_csv(table))
        if table.name != "cells":
            write_text(tables / f"{table.name}.tex", as_latex(table))
    write_leaderboard(run)
    return path


def write_leaderboard(run: Run, *, tau: float = TAU, epsilon: float = EPSILON) -> list[Path]:
    """Write one JSON file per model, method and defence into the run's folder.

    Raises:
        OutputError: if a file cannot be written.
    """
    folder = prepare_output(run.folder / "leaderboard")
    entries = leaderboard(run, tau=tau, epsilon=epsilon)
    names = safe_names([f"{e['model']} {e['method']} {e['defence']}" for e in entries])
    paths = []
    for name, entry in zip(names, entries, strict=True):
        paths.append(folder / f"{name}.json")
        write_text(paths[-1], json.dumps(entry, indent=2) + "\n")
    return paths
