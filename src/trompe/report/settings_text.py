"""How a run was made, as its report shows it: command, date, settings, software."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

from trompe.audit import Run
from trompe.audit.command import command_of

_LONG = 20
"""Lists of more entries are shortened."""


def begun(run: Run) -> str:
    """The day on which a run began; empty where that is not known."""
    began = run.store.get("began")
    return "" if began is None else f"{datetime.fromtimestamp(float(began), timezone.utc):%Y-%m-%d}"


def settings_text(run: Run, folder: str | None = None) -> str:
    """Command, date, settings and software of a run as JSON for readers; long lists in short.

    Args:
        run: whose settings they are.
        folder: what its folder is called in the command; its name if not given.
    """
    facts = {key: value for key, value in run.record.items() if value is not None}
    known = {
        "command": command_of(run.settings, folder or run.folder.name),
        "begun": begun(run),
        "settings": facts,
        "software": run.versions,
    }
    text = json.dumps(_in_short(known), indent=2)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)


def _in_short(value: Any) -> Any:
    """The same without the names of a thousand classes, which the run's own files have."""
    if isinstance(value, dict):
        return {key: _in_short(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) > _LONG:
            return f"{len(value)} entries, from {value[0]} to {value[-1]}"
        return [_in_short(one) for one in value]
    return value
