"""``trompe report``: what a run showed, as one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trompe.cli.console import say
from trompe.cli.options import json_option, quiet_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the report. Default: the run's.",
)
@click.option(
    "--gallery",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    metavar="N",
    help="Cells shown as pictures.",
)
@json_option
@quiet_option
def report(run: Path, output: Path | None, gallery: int, as_json: bool, quiet: bool) -> int:
    """Make one HTML file of RUN, with its figures and tables beside it.

    The page needs no network and no other file. Figures are written as PDF and PNG, tables as CSV
    and LaTeX, the leaderboard's entries as JSON. With --output nothing is written into RUN. No
    model is loaded.
    """
    from trompe.audit import open_run
    from trompe.report.html import write_report

    opened = open_run(run)
    click.get_current_context().call_on_close(opened.store.close)
    path = write_report(opened, output or run, most=gallery)
    if as_json:
        click.echo(json.dumps({"report": str(path), "run": opened.digest}))
    elif not quiet:
        say(f"Report: {path}")
    return 0
