"""The report that an auditor signs: eleven sections, as a page and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import trompe
from trompe.audit import Run
from trompe.audit.command import command_of
from trompe.audit.flags import MEANING
from trompe.audit.leaderboard import EPSILON, TAU, leaderboard
from trompe.audit.results import Row
from trompe.errors import UsageError
from trompe.report.audit_page import page
from trompe.report.before_after import before_after
from trompe.report.certified import certified_section, not_certified
from trompe.report.clauses import NOTE, clause_map
from trompe.report.files import json_ready, prepare_output
from trompe.report.hardening import hardening_section
from trompe.report.lead import verdicts
from trompe.report.manifest import AUDIT_REPORT, write_manifest
from trompe.report.search_limits import limit_of, not_searched
from trompe.report.tables import write_text
from trompe.report.verified import doubts, verified
from trompe.report.words import median
from trompe.robustness.doubts import MEANING as OF_SEARCHES
from trompe.robustness.shares import share

FORMAT, FORMAT_VERSION = "trompe audit report", 1
"""What ``audit-report.json`` says it is; its JSON Schema is ``audit-report.schema.json``."""

NOT_STATED = "not stated"
NOT_TESTED = "not tested"

_WORST = (("map_original_pcc", min), ("map_original_ssim", min), ("map_original_mse", max),
          ("map_target_pcc", max), ("map_target_ssim", max))  # fmt: skip
"""Measures of maps, and which end of them is the attacker's."""

_MEANING = {**OF_SEARCHES, **MEANING}
"""Of the flags of searches and attacks."""


@dataclass(frozen=True)
class Statement:
    """What a run does not know, and its author says.

    Args:
        author: who answers for the report.
        intended_use: of the system.
        relied_on_by: who takes decisions by the maps.
    """

    author: str = NOT_STATED
    intended_use: str = NOT_STATED
    relied_on_by: str = NOT_STATED


def _kinds(run: Run) -> list[tuple[dict[str, str], list[Row]]]:
    """The finished cells by model, method and defence."""
    kinds: dict[tuple[str, str, str], list[Row]] = {}
    for row in run.done:
        kinds.setdefault((row.model, row.method, row.defence), []).append(row)
    names = ("model", "method", "defence")
    return [(dict(zip(names, kind, strict=True)), rows) for kind, rows in kinds.items()]


def _ends(rows: Sequence[Row], key: str) -> dict[str, float | None]:
    values = [row.values[key] for row in rows if key in row.values]
    return {
        "median": median(rows, key),
        "least": min(values, default=None),
        "largest": max(values, default=None),
    }


def _system(run: Run, said: Statement) -> dict[str, Any]:
    models = []
    for spec in run.settings.models:
        known = run.facts(spec.key)
        models.append(
            {
                "model": spec.key,
                "weights_sha256": known["weights_of"].get(spec.key),
                "code_sha256": known["code_of"],
                "mean": known["mean"],
                "std": known["std"],
                "classes": len(known["labels"]),
            }
        )
    used = {"intended_use": said.intended_use, "relied_on_by": said.relied_on_by}
    return {"models": models, "methods": list(run.settings.methods), **used}


def _threat(run: Run) -> dict[str, Any]:
    chosen = run.settings
    return {
        "goal": f"objective {chosen.objective}: the map becomes another one, the answer stays",
        "knowledge": "white box: the attacker knows the network, its weights and the method",
        "budget": {"presets": list(chosen.presets), "iterations": chosen.iterations},
        "constraint": chosen.constraint or "that of the presets: valid pixels, a small mean change",
        "counted_within": f"largest change of a pixel {EPSILON:.4f} (8/255), pixels 0..1",
        "largest_change_of_a_pixel": _ends(run.done, "image_linf"),
        "channel": "none: the manipulated image reaches the network as numbers, not as a file",
    }


def _sample(run: Run) -> dict[str, Any]:
    source = run.record.get("source", {})
    if run.settings.pair_list is None:
        drawn = f"drawn at random with seed {run.settings.seed}"
    else:
        drawn = "pairs given in a file"
    return {
        "source": str(run.record.get("images", run.settings.images)),
        "content_sha256": source.get("content_sha256"),
        "images": run.status.images,
        "unreadable": run.status.corrupt,
        "left_out_as_misclassified": dict(run.status.wrong),
        "drawn": drawn,
        "cells": {"done": run.status.done, "failed": run.status.errors, "open": run.status.open},
        "intervals": "95 %, Clopper-Pearson; they speak of images like these, drawn alike",
    }


def _worst(run: Run, before: Run | None) -> dict[str, Any]:
    entries = [
        {
            **{key: entry[key] for key in ("model", "method", "defence", "images", "status")},
            "robust_share": entry["robust_explanation_accuracy"],
            "interval": list(entry["interval"]),
        }
        for entry in leaderboard(run)
    ]
    extremes = []
    searches: dict[tuple[str, ...], list[Row]] = {}
    for row in run.searches:
        if row.message is None:
            searches.setdefault((row.model, row.method, row.defence), []).append(row)
    for kind, rows in _kinds(run):
        kept = [row for row in rows if row.values.get("class_kept") == 1]
        found = {}
        for key, end in _WORST:
            values = [row.values[key] for row in kept if key in row.values]
            found[key] = end(values) if values else None
        judged = [*rows, *searches.get(tuple(kind.values()), [])]
        raised = Counter(flag for row in judged for flag in row.flags)
        flags = [
            {"flag": flag, "cells": count, "of": len(judged), "meaning": _MEANING.get(flag, "")}
            for flag, count in raised.most_common()
        ]
        extremes.append({**kind, "cells": len(rows), "worst": found, "flags": flags})
    # Refused rather than left out where the other run is no like audit.
    compared = {} if before is None else {"hardening": hardening_section(before_after(before, run))}
    return {
        "tau": TAU,
        "epsilon": EPSILON,
        "shares": entries,
        "extremes": extremes,
        "limit": limit_of(run.settings.worst_case),
        **compared,
    }


def _equivalence(run: Run) -> list[dict[str, Any]]:
    found = []
    for kind, rows in _kinds(run):
        kept = [row for row in rows if row.values.get("class_kept") == 1]
        label = share(len(kept), len(rows))
        changes = {key: _ends(kept, key) for key in ("softmax_l2", "logit_l2")}
        one = {"count": label.count, "n": label.n, "interval": [label.low, label.high]}
        found.append({**kind, "label_kept": one, "flips": len(rows) - len(kept), **changes})
    return found


def content(
    run: Run,
    said: Statement,
    made: datetime,
    before: Run | None = None,
    *,
    verification: dict[str, Any] | None = None,
    folder: str | None = None,
) -> dict[str, Any]:
    """What ``audit-report.json`` says, without numbers that JSON lacks.

    Args:
        run: with cells that are done.
        said: what its author states.
        made: when, with a time zone.
        before: the same audit of the network before it was hardened; fills in
            ``sections.worst_case.hardening``, which is left out without it.
        verification: what a check of the run showed, as ``verified`` says it; done if not given.
        folder: the name that the run is told to be begun in; by default that of its folder.

    Returns:
        ``format``, ``format_version``, ``date``, ``author``, ``verdict`` and the ``sections``.

    Raises:
        UsageError: if the run before is no like audit.
    """
    floor = [
        {**kind, **{key: _ends(rows, key) for key in ("noise_original_pcc", "noise_target_pcc")}}
        for kind, rows in _kinds(run)
    ]
    # What a run holds is attacks, judged on the network that it names; all else is other work.
    elsewhere = {
        "certified": not_certified(run),
        "model_side": "whether the network itself was changed to explain falsely: no reference "
        "network was compared",
        "files": "whether the manipulation outlives rounding, JPEG or resizing: 'trompe attack "
        "--through'",
        "draws": "how far two draws of a random method or two trainings of the network differ",
        "ensemble": not_searched(run.settings.worst_case),
        "other_explanations": "explanations in words, by examples or prototypes, and changes of "
        "the physical object",
    }
    verification = verified(run) if verification is None else verification
    sections = {
        "system": _system(run, said),
        "threat_model": _threat(run),
        "sample": _sample(run),
        "worst_case": _worst(run, before),
        "certified": certified_section(run),
        "floor": {"noise_of_the_same_size": floor,
                  "files": NOT_TESTED, "two_draws": NOT_TESTED, "retraining": NOT_TESTED},
        "functional_equivalence": _equivalence(run),
        "model_side": {"status": NOT_TESTED, "about": elsewhere["model_side"]},
        "not_tested": [text for text in elsewhere.values() if text],
        "reproduction": {
            "command": command_of(run.settings, folder or run.folder.name),
            "run_digest": run.digest,
            "seed": run.settings.seed,
            "software_of_the_run": dict(run.versions),
            "report_made_with": trompe.__version__,
            "verification": verification,
        },
        "clauses": {"note": NOTE, "map": clause_map()},
    }  # fmt: skip
    ready: dict[str, Any] = json_ready(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "date": made.isoformat(timespec="seconds"),
            "author": asdict(said)["author"],
            "verdict": [*doubts(verification), *(one.sentence for one in verdicts(run))],
            "sections": sections,
        }
    )
    return ready


def as_json(found: dict[str, Any]) -> str:
    """What ``audit-report.json`` holds, given its content."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def write_audit_report(
    run: Run,
    output: str | Path,
    said: Statement,
    *,
    made: datetime | None = None,
    before: Run | None = None,
) -> Path:
    """Write ``audit-report.json`` and ``audit-report.html``, the page for a browser's print.

    ``audit-report.files.json`` names the run's digest and the checksums of both.

    Args:
        run: with cells that are done.
        output: folder; made if it is not there.
        said: what its author states.
        made: when; by default now.
        before: as ``content`` takes it.

    Returns:
        Where the page lies.

    Raises:
        UsageError: if no cell is done yet, or the run before is no like audit.
        StoreError: if a run is not as it was entered.
        OutputError: if a file cannot be written.
    """
    if not run.done:
        raise UsageError(f"'{run.folder}' has no finished cell: there is nothing to report")
    run.store.check_chain()
    found = content(run, said, made or datetime.now(timezone.utc), before)
    folder = prepare_output(output)
    path = folder / "audit-report.html"
    write_text(path, page(run, found))
    write_text(folder / "audit-report.json", as_json(found))
    write_manifest(run, folder, AUDIT_REPORT)
    return path
