"""The comparison of a hardened network with the original, as the report to be signed holds it."""

from __future__ import annotations

from typing import Any

from trompe.report.before_after import BeforeAfter
from trompe.robustness.shares import Share


def hardening_section(found: BeforeAfter) -> dict[str, Any]:
    """Both networks method by method, and their answers, ready for JSON."""
    return {
        "original": found.original,
        "hardened": found.hardened,
        "run_before": found.digest,
        "rule": found.rule,
        "changes": [
            {
                "method": one.method,
                "defence": one.defence,
                "withstood_before": _share(one.before),
                "withstood_after": _share(one.after),
                "unknown": one.unknown,
                "worst_pcc_before": one.similar_before,
                "worst_pcc_after": one.similar_after,
                "sentence": one.sentence,
            }
            for one in found.changes
        ],
        "right_before": _share(found.right_before),
        "right_after": _share(found.right_after),
        "same_answer": _share(found.same_answer),
        "costs": found.costs,
        "note": found.note,
    }


def _share(one: Share) -> dict[str, Any]:
    return {"count": one.count, "n": one.n, "interval": [one.low, one.high]}
