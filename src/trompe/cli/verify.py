"""``trompe verify``: recompute a run from what it kept."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.console import progress_bar, say
from trompe.cli.options import COUNT, MANY, SEED, Number, json_option, quiet_option
from trompe.cli.verify_again import done_again, given_source
from trompe.errors import OutputError, StoreError, UsageError

if TYPE_CHECKING:
    from trompe.audit import Run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--arrays-only", is_flag=True, help="Do not run the models again.")
@click.option(
    "--trust", is_flag=True, help="Run the code that RUN names (models given as module:function)."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A module:function of yours that may be run if RUN names it.",
)
@click.option(
    "--digest",
    metavar="HEX",
    help="The digest that was published with RUN: another one is a problem.",
)
@click.option(
    "--repeat",
    type=COUNT,
    metavar="N",
    help="Also do N batches of attacks and searches again, drawn anew each time.",
)
@click.option("--seed", type=SEED, help="With --repeat: draw as it was drawn with this seed.")
@click.option(
    "--exact",
    is_flag=True,
    help="With --repeat: not a bit may differ, on the machine and with the threads of the run.",
)
@click.option(
    "--images",
    metavar="SOURCE",
    help="With --repeat: where the images are, to take them from there and not from RUN.",
)
@click.option("--unsealed", is_flag=True, help="Accept a RUN that has no seal.")
@click.option("--threads", type=MANY, help="CPU threads. Default: torch's choice.")
@click.option(
    "--tau", type=Number(-1, 1), default=0.5, show_default=True, help="Least map correlation."
)
@click.option(
    "--epsilon",
    type=Number(0, 255),
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
    trust: bool,
    models: tuple[str, ...],
    digest: str | None,
    repeat: int | None,
    seed: int | None,
    exact: bool,
    images: str | None,
    unsealed: bool,
    threads: int | None,
    tau: float,
    epsilon: float,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check every cell of RUN, and recompute its leaderboard entries and report.

    The chain of checksums is followed, and nothing may be missing or too much. The models run again
    on the images kept: metrics, the control with noise, maps by beta, flags, leaderboard and the
    report's numbers are computed anew. Ends with code 2 if something does not agree. An entry of
    the leaderboard that was right for an earlier state of the run is written anew. A run without
    the seal that its last command left also ends with code 2, unless --unsealed is given, and so
    does one that is not complete, of which what is there is checked.

    With --repeat, some batches are done again: whether the attacks and searches found what the run
    says. The batches are drawn by chance, and the seed is said.

    Models that are a function of somebody's (module:function) are code: they are not run unless you
    give --trust, or name them with --model.
    """
    from trompe.audit import open_run
    from trompe.audit.completeness import incomplete, whole_run_problems
    from trompe.audit.leaderboard import leaderboard
    from trompe.audit.seal import unsealed as without_seal
    from trompe.audit.verify import Verifier
    from trompe.zoo.load import choose_device

    if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise UsageError(f"'{digest}' is no digest of a run: 64 letters of 0-9a-f, as it prints")
    if repeat is None and (seed is not None or exact or images is not None):
        raise UsageError("--seed, --exact and --images go with --repeat")
    if repeat is not None and arrays_only:
        raise UsageError("give one of --repeat, which runs the models, and --arrays-only")
    if arrays_only and (trust or models or device != "cpu"):
        raise UsageError("--trust, --model and --device are about models: --arrays-only runs none")
    choose_device(device)  # refused before the work
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    opened = open_run(run)
    click.get_current_context().call_on_close(opened.store.close)
    if unknown := opened.settings.unknown_parts():
        raise UsageError(
            f"'{run}' has parts that trompe does not know ({', '.join(unknown)}): name the module "
            "that registers them with --plugin"
        )
    source = None if images is None else given_source(opened, images)
    problems = _another(opened, digest)
    problems += whole_run_problems(opened.store)
    open_seal, missing = without_seal(opened.store), incomplete(opened.store)
    verifier = Verifier(
        opened, models=not arrays_only, trusted=None if trust else models, device=device
    )
    checked = 0
    # What a model's code prints must not mix with what this command writes for machines.
    with progress_bar("verify", unit="cell", quiet=quiet) as bar, _talk_to_stderr():
        for one in verifier.check_all():
            checked += 1
            problems += [f"cell {one.row.id}: {text}" for text in one.problems]
            if bar is not None:
                bar(checked, opened.status.done, {})
    again: dict[str, Any] = {}
    if repeat is not None:
        with _talk_to_stderr():
            again = done_again(verifier, repeat, seed, exact=exact, source=source, quiet=quiet)
        problems += again["problems"]
    found, renewed = _files(opened, checked, sound=not problems)
    problems += found
    skipped = [] if arrays_only else verifier.distrusted()
    entries = leaderboard(opened, tau=tau, epsilon=epsilon / 255)
    if as_json:
        report = {
            "run": opened.digest,
            "cells": checked,
            "failed": opened.status.errors,
            "not_run": skipped,
            "problems": problems,
            "renewed": renewed,
            "unsealed": open_seal,
            "incomplete": missing,
            **({"repeated": again} if again else {}),
            "leaderboard": entries,
        }
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        for entry in entries:
            say(in_words(entry))
        for name in renewed:
            say(f"{name} was of an earlier state of the run")
        failed = f", {opened.status.errors} failed" if opened.status.errors else ""
        say(f"{checked} cells checked{failed}, {len(problems)} problems")
        if again:
            say(
                f"{again['cells']} cells of {len(again['batches'])} batches done again (seed "
                f"{again['seed']}): {again['exact']} the same bit by bit, {again['close']} but for "
                "rounding"
            )
        if missing:
            say(f"The run is not complete: {missing}; images with an open cell do not count above")
        if open_seal:
            say(f"The run is not sealed: {open_seal}")
        say(f"Digest of the run: {opened.digest}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise StoreError(f"'{run}' does not agree: {'; '.join(problems[:3])}{more}")
    if missing:
        raise StoreError(
            f"what is there agrees, but '{run}' is not complete: {missing}; the command that began "
            "it, given again, goes on"
        )
    if open_seal and not unsealed:
        raise StoreError(
            f"what could be checked agrees, but '{run}' is not sealed: {open_seal}; the command "
            "that began it, given again, seals it: or give --unsealed to do without"
        )
    if skipped:
        raise StoreError(
            f"what could be checked agrees, but {', '.join(skipped)} is code that '{run}' names, "
            "and was not run: give --trust if you trust it, or --arrays-only to do without"
        )
    if again and again["left"]:
        raise StoreError(
            f"what could be checked agrees, but {len(again['left'])} cells could not be done again "
            f"({again['left'][0]}): name the images with --images"
        )
    return 0


def _another(opened: Run, digest: str | None) -> list[str]:
    """Whether the run is, to the last entry, the one of a digest that was published."""
    from trompe.audit import chain
    from trompe.audit.store import plainly

    if digest is None or digest.lower() == opened.digest:
        return []
    with plainly(opened.store.path):
        earlier = digest.lower() in chain.digests(opened.store.db)
    more = ", though it says to have once been" if earlier else ""
    return [f"it is not the run of the digest {digest[:12]}...{more}"]


def _talk_to_stderr() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(sys.stderr)


def _files(opened: Run, cells: int, *, sound: bool) -> tuple[list[str], list[str]]:
    """What the leaderboard and the reports in the run's folder say otherwise than its numbers.

    Args:
        opened: the run.
        cells: that were checked.
        sound: whether no problem was found in them.

    Returns:
        What does not agree; and what was right for an earlier state of the run.
    """
    from trompe.report.audit_numbers import check_audit_numbers
    from trompe.report.leaderboard_files import check_leaderboard, write_leaderboard
    from trompe.report.manifest import AUDIT_REPORT, check_manifest
    from trompe.report.report_numbers import check_report

    problems, stale = check_leaderboard(opened)
    renewed = [f"leaderboard/{path.name}" for path in stale]
    if stale and not problems:
        with contextlib.suppress(OutputError):  # where nothing may be written
            write_leaderboard(opened)
    found, current = check_manifest(opened)
    if current and sound and not found:
        found = check_report(opened)
    elif not current and not found and (opened.folder / "report.html").exists():
        renewed.append("the report")
    signed, current = check_manifest(opened, AUDIT_REPORT)
    if current and sound and not signed:
        signed = check_audit_numbers(opened, cells)
    elif not current and not signed and (opened.folder / "audit-report.html").exists():
        renewed.append("the report to be signed")
    return problems + found + signed, renewed


def in_words(entry: dict[str, Any]) -> str:
    """A leaderboard entry in one line."""
    share = 100 * entry["robust_explanation_accuracy"]
    known = entry["status"]["success"] + entry["status"]["nothing found"]
    return (
        f"{entry['model']} {entry['method']} ({entry['defence']}): {share:.0f} % of "
        f"{entry['images']} images keep their explanation (95 % interval "
        f"{100 * entry['interval'][0]:.0f} to {100 * entry['interval'][1]:.0f} %; PCC >= "
        f"{entry['tau']:g}, pixels within {255 * entry['epsilon']:.3g}/255; {known} of them known)"
    )
