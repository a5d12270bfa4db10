"""Whether a run is what was computed, as the report to be signed says it."""

from __future__ import annotations

from typing import Any

from trompe.audit import Run
from trompe.audit.completeness import incomplete, whole_run_problems
from trompe.audit.seal import unsealed
from trompe.audit.verify import Verifier

HOW = "chain of checksums and arrays; 'trompe verify' runs the models again too"
"""What is checked while the report is made."""


def verified(run: Run) -> dict[str, Any]:
    """What a check of the chain of checksums and of the arrays shows; no model runs."""
    problems = whole_run_problems(run.store)
    checked = 0
    for one in Verifier(run, models=False).check_all():
        checked += 1
        problems += [f"cell {one.row.id}: {text}" for text in one.problems]
    found = {"cells": checked, "problems": problems, "unsealed": unsealed(run.store), "how": HOW}
    return found | lacking(run)


def lacking(run: Run) -> dict[str, str]:
    """What a run that is not complete lacks, as an entry of its own; nothing for a complete one."""
    missing = incomplete(run.store)
    return {} if missing is None else {"incomplete": missing}


def doubts(found: dict[str, Any]) -> list[str]:
    """What stands before every verdict: why the run itself may not be what was computed."""
    said = []
    if found["problems"]:
        said.append(
            f"The run is not as it was entered (problems: {len(found['problems'])}, section 10): "
            "do not rely on what follows."
        )
    if missing := found.get("incomplete"):
        said.append(
            f"The run is not complete: {missing}, and images with an open cell do not count; the "
            "command that began it, given again, goes on."
        )
    if found["unsealed"]:
        said.append(
            f"The run is not sealed ({found['unsealed']}): the command that began it, given again, "
            "seals it."
        )
    return said
