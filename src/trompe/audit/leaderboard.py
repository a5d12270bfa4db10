"""Robust-explanation accuracy: one entry per model, method and defence, from a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trompe.audit.batches import CERTIFICATE, WORST_CASE
from trompe.audit.certified_share import certified_share
from trompe.audit.results import Row, Run
from trompe.robustness.doubts import KINKS_REMAIN
from trompe.robustness.evaluation import FAILED, NOTHING, STATUS, SUCCESS, UNKNOWN
from trompe.robustness.shares import Share, share

#: The similarity of maps (PCC) that must not be undercut, and the largest change of a pixel.
TAU, EPSILON = 0.5, 8 / 255
#: For the curve.
TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_SLACK = 1e-6
_ANY_RADIUS = 2.0


def status(rows: Sequence[Row], tau: float, epsilon: float, *, searching: bool = False) -> str:
    """What the attacks in ``rows``, all on one image, showed of its explanation.

    Args:
        rows: cells of one image, model, method and defence; those that failed with them.
        tau: least correlation with the original map.
        epsilon: largest change of a pixel, pixel units 0..1.
        searching: whether the run looks for the worst case. Then the attacks of its presets can
            only break an explanation: that it withstands, the search alone can show.

    Returns:
        ``success``: an attack within the radius kept the class and brought the correlation below
        ``tau`` (or left no map to correlate). ``nothing found``: at least one attack within the
        radius changed the image and kept its class, and none succeeded; or the search for the
        worst case judged at least one image, and its radius is not less. ``failed``: every cell
        failed, or the search. ``unknown``: all else. An attack beyond the radius, one that changed
        the class, one that gave the original image back and one through kinks that no smoothing
        covers are no evidence that an explanation is robust.
    """
    done = [row for row in rows if row.message is None]
    if not done:
        return FAILED
    seen = not blind(rows)
    evidence = seen and any(_searched(row, epsilon) for row in done)
    for row in done:
        size = row.values.get("image_linf", float("inf"))
        kept = row.values.get("class_kept", 0.0) == 1.0
        if not kept or not 0 < size <= epsilon + _SLACK:
            continue
        if not row.values.get("map_original_pcc", -1.0) >= tau:
            return SUCCESS
        evidence = evidence or (seen and not searching)
    if searching and any(row.preset == WORST_CASE and row.message is not None for row in rows):
        return FAILED
    return NOTHING if evidence else UNKNOWN


def blind(rows: Sequence[Row]) -> bool:
    """Whether attacks by derivatives may not have seen past kinks that no smoothing covers."""
    return any(KINKS_REMAIN in row.flags for row in rows)


def _searched(row: Row, epsilon: float) -> bool:
    """Whether a cell looked for the worst case within a radius, and judged what it found."""
    whole = row.preset == WORST_CASE and row.values.get("judged", 0.0) > 0
    return whole and epsilon <= EPSILON + _SLACK


def robust(rows: Sequence[Row], tau: float, epsilon: float, *, searching: bool = False) -> bool:
    """Whether an image's explanation withstood what was tried within the radius; see ``status``."""
    return status(rows, tau, epsilon, searching=searching) == NOTHING


def by_image(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The cells of each image, by its name."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.image, []).append(row)
    return groups


def accuracy(rows: Sequence[Row], tau: float, epsilon: float, *, searching: bool = False) -> Share:
    """The share of ALL images in ``rows`` that are ``robust``, with its 95 % interval."""
    groups = list(by_image(rows).values())
    count = sum(robust(group, tau, epsilon, searching=searching) for group in groups)
    return share(count, len(groups))


def _at_any_size(rows: Sequence[Row], tau: float, epsilon: float, searching: bool) -> float:
    """The share of images that no attack broke, however much it changed the image."""
    if not searching:
        return accuracy(rows, tau, _ANY_RADIUS).value
    groups = list(by_image(rows).values())
    whole = sum(
        robust(group, tau, epsilon, searching=True) and status(group, tau, _ANY_RADIUS) != SUCCESS
        for group in groups
    )
    return share(whole, len(groups)).value


def attack_in_record(record: Mapping[str, Any]) -> dict[str, str]:
    """The objective and the constraint of a run's attacks, as far as it names them.

    A run that names none was attacked towards other images' maps, within the presets' constraints.
    """
    return {name: record[name] for name in ("objective", "constraint") if record.get(name)}


def aim_in_words(record: Mapping[str, Any]) -> str:
    """What the attacks of a run aimed at, after "towards"."""
    return f"the objective {record['objective']}" if "objective" in record else "a target"


def _entry(
    run: Run, group: Sequence[Row], tau: float, epsilon: float, digest: str
) -> dict[str, Any]:
    cells = [row for row in group if row.preset != CERTIFICATE]
    certificates = [row for row in group if row.preset == CERTIFICATE]
    asked = run.settings.certification
    budget = run.settings.worst_case
    searching = budget is not None
    attacks = [row for row in cells if row.preset != WORST_CASE]
    rows = [row for row in attacks if row.message is None]
    found = [status(group, tau, epsilon, searching=searching) for group in by_image(cells).values()]
    robust_share = accuracy(cells, tau, epsilon, searching=searching)
    first = cells[0]
    number = 5 if asked is not None else 4 if searching else 3
    return {
        "format": f"trompe-leaderboard-{number}",
        "model": first.model,
        "method": first.method,
        "defence": first.defence,
        "presets": sorted({row.preset for row in rows}),
        **({} if budget is None else _search(run, cells, budget)),
        **({} if asked is None else {"certified": certified_share(certificates, asked, tau)}),
        "iterations": run.settings.iterations,
        **attack_in_record(run.record),
        "images": len(found),
        "attacks": len(rows),
        "failed": len(attacks) - len(rows),
        "tau": tau,
        "epsilon": epsilon,
        "norm": "linf, pixels 0..1",
        "similarity": "Pearson correlation of heat maps",
        "robust_explanation_accuracy": robust_share.value,
        "interval": [robust_share.low, robust_share.high],
        "confidence": robust_share.confidence,
        "status": {word: found.count(word) for word in STATUS},
        "robust_explanation_accuracy_any_radius": _at_any_size(cells, tau, epsilon, searching),
        "curve": [[one, accuracy(cells, one, epsilon, searching=searching).value] for one in TAUS],
        "attacks_outside_radius": sum(
            row.values.get("image_linf", 0.0) > epsilon + _SLACK for row in rows
        ),
        "classes_changed": sum(row.values.get("class_kept") == 0.0 for row in rows),
        "note": (
            "of the worst map that 'auto_attack' found within the radius, and of attacks towards "
            f"{aim_in_words(run.record)}, which can only lower it: an upper bound still, that a "
            "larger budget may lower; "
            if searching
            else f"of attacks towards {aim_in_words(run.record)}, which look for no worst case: "
            "an upper bound, that 'trompe robustness' lowers; "
        )
        + "images that the model classifies wrongly are not counted unless the run kept them",
        "source": run.record["source"],
        "seed": run.settings.seed,
        "versions": run.versions,
        "run": digest,
    }


def _search(run: Run, cells: Sequence[Row], budget: float) -> dict[str, Any]:
    """What an entry says of the search for the worst case, and of images never attacked."""
    searches = [row for row in cells if row.preset == WORST_CASE]
    worst = [
        row.values.get("map_original_pcc", -1.0) for row in searches if row.values.get("judged")
    ]
    ((unreadable,),) = run.store.rows(
        "SELECT COUNT(*) FROM screens WHERE model = ? AND problem IS NOT NULL", (cells[0].model,)
    )
    return {
        "worst_case": {
            "attack": "auto_attack, version standard",
            "budget": budget,
            "radius": EPSILON,
            "images": len(searches),
            "failed": sum(row.message is not None for row in searches),
            "answer_never_kept": sum(row.values.get("judged") == 0.0 for row in searches),
            "mean_pcc": sum(worst) / len(worst) if worst else None,
        },
        "unreadable": int(unreadable),
    }


def _decided(run: Run, rows: Sequence[Row]) -> list[Row]:
    """The rows of the images of which every attack and search is done or failed."""
    entered = {row.id for row in rows}
    kinds = {
        int(id_): (image, *kind)
        for id_, image, *kind in run.store.rows(
            "SELECT id, image, model, method, smoothing FROM cells WHERE preset != ?",
            (CERTIFICATE,),
        )
    }
    undecided = {kind for id_, kind in kinds.items() if id_ not in entered}
    if not undecided:
        return list(rows)
    return [row for row in rows if kinds.get(row.id) not in undecided]


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
        rows: in place of all of the run's, failed ones, searches and certificates included.
        digest: of the run, in place of its present one.

    Returns:
        One dictionary, ready for JSON, per model, method and smoothing. As long as a run is not
        complete, images with an attack or a search still open do not count.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in _decided(run, run.by_purpose if rows is None else rows):
        groups.setdefault((row.model, row.method, row.defence), []).append(row)
    state = run.digest if digest is None else digest
    return [
        _entry(run, group, tau, epsilon, state)
        for group in groups.values()
        if any(row.message is None and row.preset != CERTIFICATE for row in group)
    ]
