"""What a run showed, in plain words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from trompe.audit.leaderboard import TAU, blind
from trompe.audit.results import Row
from trompe.geometry.smoothed_method import Smoothing
from trompe.report.attack_words import number


def median(rows: Sequence[Row], key: str) -> float | None:
    """The median of a metric over the cells that have it."""
    values = [row.values[key] for row in rows if key in row.values]
    return statistics.median(values) if values else None


#: Two maps that correlate so well are alike: neither was one made into the other.
ALIKE = 0.8


def fooled(row: Row) -> bool:
    """Whether the attack succeeded: the image changed, the answer stayed, and the map moved over.

    That is: it is nearer to the target than to the original one, and no more like the original one.
    Where the two were alike from the start, being near to both is no success. Where the attack
    aimed at no map, the map must have become unlike the original one: its correlation is below
    the leaderboard's threshold.
    """
    if row.message is not None or row.values.get("class_kept") != 1:
        return False
    target, original = (row.values.get(f"map_{kind}_pcc", -1.0) for kind in ("target", "original"))
    start = row.values.get("map_start_pcc", -1.0)
    moved = row.values.get("image_linf", 0.0) > 0
    if not aimed(row):
        return moved and original < TAU
    return moved and target > original and original < ALIKE and start < ALIKE


def aimed(row: Row) -> bool:
    """Whether the attack of a cell aimed at a map, so that something is known of being near it."""
    return "map_start_pcc" in row.values or "objective_after" not in row.values


def outcome(row: Row) -> str:
    """What came of a cell: ``success``, ``nothing found``, ``answer changed`` or ``failed``."""
    if row.message is not None:
        return "failed"
    if row.values.get("class_kept") != 1:
        return "answer changed"
    return "success" if fooled(row) else "nothing found"


def share(rows: Sequence[Row]) -> float:
    """The share of the cells that did not fail in which the attack succeeded."""
    done = [row for row in rows if row.message is None]
    return sum(fooled(row) for row in done) / max(len(done), 1)


UNKNOWN = "unknown, no attack was judged"
OFTEN = 0.3
"""The share from which on an explanation is said to be manipulated often."""
UNSEEN = "unknown, kinks remain past which no attack by derivatives sees"


def verdict(part: float) -> str:
    """How manipulable an explanation is, in a few words, given the share that was manipulated."""
    if part >= 0.8:
        return "easily manipulated"
    if part >= OFTEN:
        return "often manipulated"
    return "sometimes manipulated" if part > 0 else "not manipulated by these attacks"


def attacks_verdict(rows: Sequence[Row]) -> str:
    """The same of attacks that are done or failed."""
    if all(outcome(row) in ("failed", "answer changed") for row in rows):
        return UNKNOWN
    part = share(rows)
    return UNSEEN if blind(rows) and part < OFTEN else verdict(part)


def _others(rows: Sequence[Row]) -> str:
    """What came of the other cells, each in its own word."""
    found = [outcome(row) for row in rows]
    words = [
        f"{what} in {found.count(what)}"
        for what in ("nothing found", "answer changed", "failed")
        if what in found
    ]
    return f"; {', '.join(words)}" if words else ""


def method_sentence(method: str, rows: Sequence[Row]) -> str:
    """How one method fared under one model, unsmoothed."""
    done = [row for row in rows if row.message is None]
    count, name = sum(fooled(row) for row in done), method.replace("_", " ")
    psnr = median(rows, "image_psnr")
    seen = "" if psnr is None else f", the image changed by {psnr:.0f} dB PSNR"
    if done and not any(map(aimed, done)):
        return (
            f"{name}: {attacks_verdict(rows)}. In {count} of {len(done)} cases the "
            f"answer stayed and the explanation's correlation with the original one fell below "
            f"{TAU}{_others(rows)} (median {number(median(rows, 'map_original_pcc'))}, with "
            f"random noise of the same size {number(median(rows, 'noise_original_pcc'))}{seen})."
        )
    noise, start = median(rows, "noise_target_pcc"), median(rows, "map_start_pcc")
    return (
        f"{name}: {attacks_verdict(rows)}. In {count} of {len(done)} cases the answer "
        "stayed and the explanation came nearer to the target than to the original one"
        f"{_others(rows)} (median correlation with the target "
        f"{number(median(rows, 'map_target_pcc'))}, before the attack "
        f"{number(start)}, with random noise of the same size {number(noise)}{seen})."
    )


def smoothing_sentence(method: str, smoothing: Smoothing, rows: Sequence[Row]) -> str | None:
    """What a smoothing buys for a method, on the pairs that both were attacked on."""
    plain = {(r.preset, r.pair): r for r in rows if r.smoothing is None and r.message is None}
    both = [
        (plain[r.preset, r.pair], r)
        for r in rows
        if r.smoothing == smoothing and r.message is None and (r.preset, r.pair) in plain
    ]
    if not both:
        return None
    before, after = [a for a, _ in both], [b for _, b in both]
    gain = (median(after, "map_original_pcc") or 0) - (median(before, "map_original_pcc") or 0)
    what = "helps" if gain > 0.05 else "makes it worse" if gain < -0.05 else "changes little"
    words = (
        f"{method.replace('_', ' ')} with {smoothing}: {what}. Under attack the explanation "
        f"correlates {number(median(after, 'map_original_pcc'))} with the original one instead "
        f"of {number(median(before, 'map_original_pcc'))} (more is better)"
    )
    if not any(map(aimed, after)):
        return f"{words}."
    return (
        f"{words}, and "
        f"{number(median(after, 'map_target_pcc'))} with the target instead of "
        f"{number(median(before, 'map_target_pcc'))} (less is better; "
        f"{number(median(after, 'map_start_pcc'))} is what it begins with)."
    )


def summary(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Sentences by model: the methods, then what smoothing buys."""
    found: dict[str, list[str]] = {}
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        sentences = found.setdefault(model, [])
        for method in dict.fromkeys(row.method for row in own):
            some = [row for row in own if row.method == method]
            if plain := [row for row in some if row.smoothing is None]:
                sentences.append(method_sentence(method, plain))
            for smoothing in dict.fromkeys(filter(None, (r.smoothing for r in some))):
                sentence = smoothing_sentence(method, smoothing, some)
                if sentence is None:
                    cells = [row for row in some if row.smoothing == smoothing]
                    sentence = method_sentence(f"{method} with {smoothing}", cells)
                sentences.append(sentence)
    return found
