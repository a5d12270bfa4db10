"""What ``trompe audit`` says at its end: how far the run is, and what it showed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from trompe.cli.console import say

if TYPE_CHECKING:
    from trompe.audit import Status

#: Reasons for failed cells that are told; the rest are counted.
MOST_REASONS = 3


def say_outcome(folder: Path) -> None:
    """Say in a sentence per method what the cells that are done showed, and what to do next."""
    from trompe.audit import open_run
    from trompe.report.certified import certified_sentences
    from trompe.report.lead import verdicts

    run = open_run(folder)
    for one in verdicts(run):
        say(one.sentence)
    for sentence in certified_sentences(run):
        say(sentence)
    say(f"Pictures, advice and limits: trompe report {folder}")


def status_in_words(found: Status, folder: Path) -> str:
    """A few lines: what is done, what was left out, what cannot be trusted."""
    state = "complete" if found.complete else "not complete: the same command goes on"
    if not found.open and found.errors:
        state = "not complete: the same command tries the failed ones again"
    lines = [
        f"{found.done} of {found.cells} cells done, {found.errors} failed ({state})",
        f"  images       {found.images}, of which {found.corrupt} cannot be read",
    ]
    if found.objective != "reach_map":
        lines.append(f"  objective    {found.objective}")
    if found.worst_case is not None:
        lines.append(f"  worst case   looked for with a budget of {found.worst_case:g}")
    if found.certify is not None:
        lines.append(f"  certified    smoothed maps, radius {found.certify}")
    if found.constraint is not None:
        lines.append(f"  constraint   {found.constraint}")
    for model, count in found.wrong.items():
        lines.append(f"  skipped      {count} that {model} classifies wrongly")
    if found.claimed:
        lines.append(f"  at work      on {found.claimed} batches")
    for message, count in islice(found.failures.items(), MOST_REASONS):
        lines.append(f"  failed       {count}: {message}")
    if len(found.failures) > MOST_REASONS:
        lines.append(f"  failed       {len(found.failures) - MOST_REASONS} more reasons: --json")
    for flag, count in sorted(found.flags.items()):
        lines.append(f"  flag         {flag}: {count}")
    lines.append(f"Run: {folder}")
    return "\n".join(lines)
