"""``trompe report``: what a run showed, as one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trompe.cli.console import say
from trompe.cli.options import (
    json_option,
    quiet_option,
)
from trompe.cli.output_path import OutputPath
from trompe.errors import UsageError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=OutputPath(),
    metavar="FOLDER",
    help="Folder for the report. Default: the run's.",
)
@click.option(
    "--gallery",
    type=click.IntRange(0, 10_000_000),
    default=12,
    show_default=True,
    metavar="N",
    help="Cells shown as pictures.",
)
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The same audit of the network before hardening: what it bought and cost.",
)
@click.option(
    "--for",
    "reader",
    type=click.Choice(["client", "audit"]),
    default="client",
    show_default=True,
    help="Who reads it: 'audit' writes audit-report.html and audit-report.json, to be signed.",
)
@click.option("--author", metavar="NAME", help="Who answers for the report.")
@click.option("--intended-use", metavar="TEXT", help="With --for audit: what the system is for.")
@click.option("--relied-on-by", metavar="TEXT", help="With --for audit: who relies on the maps.")
@json_option
@quiet_option
def report(
    run: Path,
    output: Path | None,
    gallery: int,
    before: Path | None,
    reader: str,
    as_json: bool,
    quiet: bool,
    author: str | None,
    **said: str | None,
) -> int:
    """Make one HTML file of RUN, with its figures and tables beside it.

    The page needs no network and no other file. Figures are written as PDF and PNG, tables as CSV
    and LaTeX, the leaderboard's entries as JSON. With --output nothing is written into RUN. No
    model is loaded.

    With --before RUN is of a hardened network, and the other run of the original: either page then
    says per method how many explanations withstand before and after, and what became of the
    answers. The settings and the images must be the same.

    With --for audit: eleven sections from the system and the threat to what was not tested, how to
    repeat it, and where standards ask for it, as a page for a browser's print and as JSON.
    """
    from trompe.audit import open_run
    from trompe.report.html import write_report

    opened = open_run(run)
    click.get_current_context().call_on_close(opened.store.close)
    given = {name: text for name, text in said.items() if text is not None}
    original = None if before is None else open_run(before)
    if original is not None:
        click.get_current_context().call_on_close(original.store.close)
    if reader == "audit":
        from trompe.report.for_audit import Statement, write_audit_report

        if author is not None:
            given["author"] = author
        path = write_audit_report(opened, output or run, Statement(**given), before=original)
    elif given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{options}: give --for audit with it")
    else:
        path = write_report(opened, output or run, most=gallery, author=author, before=original)
    if as_json:
        click.echo(json.dumps({"report": str(path), "run": opened.digest}))
    elif not quiet:
        say(f"Report: {path}")
    return 0
