"""All figures that can be redrawn, and writing them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trompe.atomic import atomic_path
from trompe.errors import UsageError
from trompe.report.files import prepare_output
from trompe.report.paper import attacks, networks, outputs, smoothed_attacks, smoothing
from trompe.report.paper.context import Context, Redrawn
from trompe.report.tables import write_text

FIGURES: dict[int, Callable[[Context], Redrawn]] = {
    1: attacks.figure_1,
    2: attacks.figure_2,
    3: attacks.figure_3,
    4: smoothing.figure_4,
    5: smoothed_attacks.figure_5,
    6: attacks.figure_6,
    7: smoothing.figure_7,
    8: smoothing.figure_8,
    9: smoothing.figure_9,
    10: outputs.figure_10,
    11: outputs.figure_11,
    12: networks.figure_12,
    13: networks.figure_13,
    14: networks.figure_14,
    15: networks.figure_15,
    16: networks.figure_16,
    17: networks.figure_17,
    18: smoothing.figure_18,
    19: smoothed_attacks.figure_19,
    20: smoothed_attacks.figure_20,
    21: smoothed_attacks.figure_21,
    22: smoothed_attacks.figure_22,
    23: smoothed_attacks.figure_23,
    24: smoothing.figure_24,
}
"""By their numbers in the paper."""


def reproduce(number: int, context: Context) -> dict[str, Any]:
    """Run the experiment of a figure, draw it, and compare its numbers with the paper's.

    Writes ``figure_N.png`` and ``.pdf`` and ``figure_N.json`` into the context's folder.

    Args:
        number: of the figure.
        context: what it is run on.

    Returns:
        The content of the JSON file.

    Raises:
        UsageError: if the figure cannot be redrawn.
        TrompeError: if the experiment fails.
    """
    if number not in FIGURES:
        known = ", ".join(map(str, FIGURES))
        raise UsageError(f"figure {number} cannot be redrawn: choose from {known}, or all")
    redrawn = FIGURES[number](context)
    folder = prepare_output(context.folder)
    files = []
    for end, figure in redrawn.drawings.items():
        name = f"figure_{number}" + (f"_{end}" if end else "")
        for kind in ("png", "pdf"):
            metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
            with atomic_path(folder / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
            files.append(f"{name}.{kind}")
    content = {
        "figure": number,
        "made_with": redrawn.made_with or context.caption,
        "files": files,
        "claims": [asdict(claim) for claim in redrawn.claims],
        "agreement": dict(Counter(claim.agreement for claim in redrawn.claims)),
    }
    write_text(folder / f"figure_{number}.json", json.dumps(content, indent=2) + "\n")
    return content
