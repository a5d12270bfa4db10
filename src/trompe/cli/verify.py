"""``trompe verify``: recompute a run from what it kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.console import progress_bar
from trompe.cli.options import json_option, quiet_option
from trompe.errors import StoreError

if TYPE_CHECKING:
    from trompe.audit import Run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--arrays-only", is_flag=True, help="Do not run the models again.")
@click.option("--tau", type=float, default=0.5, show_default=True, help="Least map correlation.")
@click.option(
    "--epsilon",
    type=float,
    default=8.0,
    show_default=True,
    help="Largest change of a pixel, in levels of 255.",
)
@click.option(
    "--device", metavar="[cpu|cuda|auto]", default="cpu", show_default=True, help="Where to work."
)
@json_option
@quiet_option
def verify(
    run: Path,
    arrays_only: bool,
    tau: float,
    epsilon: float,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check every cell of RUN, and recompute its leaderboard entries.

    The arrays' checksums are compared, the models run again on the images kept, all numbers that
    compare images, maps and outputs computed anew, and the entries in RUN/leaderboard compared;
    not so the control with noise and the maps by beta. Ends with code 2 if something does not
    agree.
    """
    from trompe.audit import open_run
    from trompe.audit.leaderboard import leaderboard
    from trompe.audit.verify import Verifier

    opened = open_run(run)
    verifier = Verifier(opened, models=not arrays_only, device=device)
    checked = []
    with progress_bar("verify", unit="cell", quiet=quiet) as progress:
        for one in verifier.check_all():
            checked.append(one)
            if progress is not None:
                progress(len(checked), len(opened.done), {})
    problems = [f"cell {one.row.id}: {text}" for one in checked for text in one.problems]
    entries = leaderboard(opened, tau=tau, epsilon=epsilon / 255, rows=[one.row for one in checked])
    problems += compared(opened, [one.row for one in checked])
    if as_json:
        report = {"cells": len(checked), "problems": problems, "leaderboard": entries}
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        for entry in entries:
            click.echo(in_words(entry))
        click.echo(f"{len(checked)} cells checked, {len(problems)} problems")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise StoreError(f"'{run}' does not agree: {'; '.join(problems[:3])}{more}")
    return 0


def in_words(entry: dict[str, Any]) -> str:
    """A leaderboard entry in one line."""
    share = 100 * entry["robust_explanation_accuracy"]
    return (
        f"{entry['model']} {entry['method']} ({entry['defence']}): {share:.0f} % of "
        f"{entry['images']} images keep their explanation (PCC >= {entry['tau']:g}, pixels within "
        f"{255 * entry['epsilon']:.3g}/255)"
    )


def compared(opened: Run, rows: list[Any]) -> list[str]:
    """What the entries in the run's folder say otherwise than the recomputed numbers."""
    from trompe.audit.leaderboard import leaderboard

    problems = []
    for path in sorted((opened.folder / "leaderboard").glob("*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            fresh = leaderboard(opened, tau=kept["tau"], epsilon=kept["epsilon"], rows=rows)
            key = ("model", "method", "defence")
            same = [e for e in fresh if all(e[k] == kept[k] for k in key)]
            numbers = ("robust_explanation_accuracy", "images", "curve")
            if not same or any(same[0][k] != kept[k] for k in numbers):
                problems.append(f"{path.name} is not what follows from the run")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.name} cannot be read ({error})")
    return problems
