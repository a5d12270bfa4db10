"""Robust-explanation accuracy: one entry per model, method and defence, from a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trompe.audit.results import Row, Run

#: The similarity of maps (PCC) that must not be undercut, and the largest change of a pixel.
TAU, EPSILON = 0.5, 8 / 255
#: For the curve.
TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def robust(rows: Sequence[Row], tau: float, epsilon: float) -> bool:
    """Whether no attack in ``rows``, all on one image, broke its explanation within the radius.

    Broken is: the class changed, or the map's correlation with the original one is below ``tau``
    (or undefined), while no pixel changed by more than ``epsilon`` (pixel units 0..1).
    """
    for row in rows:
        inside = row.values.get("image_linf", 0.0) <= epsilon + 1e-6
        similar = row.values.get("map_original_pcc", -1.0) >= tau
        if inside and not (similar and row.values.get("class_kept", 0.0) == 1.0):
            return False
    return True


def _entry(
    run: Run, cells: Sequence[Row], tau: float, epsilon: float, digest: str
) -> dict[str, Any]:
    rows = [row for row in cells if row.message is None]
    by_image: dict[str, list[Row]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    groups = list(by_image.values())

    def share(tau: float, epsilon: float) -> float:
        return sum(robust(group, tau, epsilon) for group in groups) / len(groups)

    first = rows[0]
    return {
        "format": "trompe-leaderboard-2",
        "model": first.model,
        "method": first.method,
        "defence": first.defence,
        "presets": sorted({row.preset for row in rows}),
        "iterations": run.settings.iterations,
        "images": len(groups),
        "attacks": len(rows),
        "failed": len(cells) - len(rows),
        "tau": tau,
        "epsilon": epsilon,
        "norm": "linf, pixels 0..1",
        "similarity": "Pearson correlation of heat maps",
        "robust_explanation_accuracy": share(tau, epsilon),
        "robust_explanation_accuracy_any_radius": share(tau, 2.0),
        "curve": [[one, share(one, epsilon)] for one in TAUS],
        "attacks_outside_radius": sum(
            row.values.get("image_linf", 0.0) > epsilon + 1e-6 for row in rows
        ),
        "note": "an upper bound: a stronger attack can only lower it; images that the model "
        "classifies wrongly are not counted unless the run kept them",
        "source": run.record["source"],
        "seed": run.settings.seed,
        "versions": run.versions,
        "run": digest,
    }


def leaderboard(
    run: Run,
    *,
    tau: float = TAU,
    epsilon: float = EPSILON,
    rows: Sequence[Row] | None = None,
    digest: str | None = None,
) -> list[dict[str, Any]]:
    """The entries of a run: the share of images whose explanation withstood every attack.

    Args:
        run: to be summarised.
        tau: least correlation with the original map.
        epsilon: largest change of a pixel, pixel units 0..1.
        rows: in place of all of the run's, failed ones included.
        digest: of the run, in place of its present one.

    Returns:
        One dictionary, ready for JSON, per model, method and smoothing.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in run.rows if rows is None else rows:
        groups.setdefault((row.model, row.method, row.defence), []).append(row)
    state = run.digest if digest is None else digest
    return [
        _entry(run, group, tau, epsilon, state)
        for group in groups.values()
        if any(row.message is None for row in group)
    ]
