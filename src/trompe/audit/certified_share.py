"""Of how many images the smoothed map is certified, from the certificates of a run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from trompe.audit.certification import Certification
from trompe.audit.results import Row
from trompe.robustness.shares import share

CERTIFIED, ANSWER, BELOW, VOID, FAILED = (
    *("certified", "answer not certified", "below tau", "void", "failed"),
)
#: What a certificate can come to; each image is one of these.
OUTCOMES = (CERTIFIED, ANSWER, BELOW, VOID, FAILED)


def outcome(row: Row, tau: float) -> str:
    """What one certificate came to.

    Args:
        row: the cell, done or failed.
        tau: least correlation.

    Returns:
        ``certified``: within the radius the smoothed map keeps a correlation of at least ``tau``,
        and the answer that most noisy copies get stays and is that of the image itself (of values,
        which are no decision, the map alone counts). ``answer not certified``: the map does, the
        answer may not. ``below tau``: the bound is lower. ``void``: no correlation at all is
        excluded. ``failed``: there is no certificate.
    """
    if row.message is not None:
        return FAILED
    pcc = row.values.get("certified_pcc", -1.0)
    if pcc <= -1:
        return VOID
    if not pcc >= tau:
        return BELOW
    return CERTIFIED if row.values.get("certified_label", 1.0) == 1.0 else ANSWER


def certified_share(rows: Sequence[Row], asked: Certification, tau: float) -> dict[str, Any]:
    """The certified share of one model, method and defence, ready for JSON.

    Args:
        rows: its certificates, failed ones with them; each is of another image.
        asked: of the run's settings.
        tau: least correlation.
    """
    found = [outcome(row, tau) for row in rows]
    certified = share(found.count(CERTIFIED), len(found))
    done = [row for row in rows if row.message is None]

    def middle(name: str) -> float | None:
        values = [row.values[name] for row in done if name in row.values]
        return median(values) if values else None

    return {
        "of": "the map averaged over noise; of the plain map nothing is certified",
        "radius": asked.radius,
        "norm": "l2, pixels 0..1",
        "tau": tau,
        "sigma": asked.sigma,
        "samples": asked.samples,
        "pool": asked.pool,
        "denoiser": asked.denoiser,
        "confidence_of_each": asked.confidence,
        "images": certified.n,
        "count": certified.count,
        "share": certified.value if found else None,
        "interval": [certified.low, certified.high],
        "confidence": certified.confidence,
        "answer_counts": not done or any("certified_label" in row.values for row in done),
        "outcomes": {word: found.count(word) for word in OUTCOMES},
        "median_pcc": middle("certified_pcc"),
        "median_pcc_to_plain": middle("pcc_to_plain"),
    }
