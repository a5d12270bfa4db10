"""What a run showed, in plain words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from trompe.audit.results import Row
from trompe.geometry.smoothed_method import Smoothing


def median(rows: Sequence[Row], key: str) -> float | None:
    """The median of a metric over the cells that have it."""
    values = [row.values[key] for row in rows if key in row.values]
    return statistics.median(values) if values else None


def fooled(row: Row) -> bool:
    """Whether the class stayed and the map is nearer to the target than to the original map."""
    return row.values.get("class_kept") == 1 and row.values.get(
        "map_target_pcc", -1.0
    ) > row.values.get("map_original_pcc", -1.0)


def share(rows: Sequence[Row]) -> float:
    """The share of fooled cells."""
    return sum(fooled(row) for row in rows) / max(len(rows), 1)


def verdict(rows: Sequence[Row]) -> str:
    """How manipulable an explanation is, in a few words."""
    part = share(rows)
    if part >= 0.8:
        return "easily manipulated"
    if part >= 0.3:
        return "often manipulated"
    return "sometimes manipulated" if part > 0 else "not manipulated by this attack"


def _number(value: float | None, form: str = ".2f") -> str:
    return "undefined" if value is None else format(value, form)


def method_sentence(method: str, rows: Sequence[Row]) -> str:
    """How one method fared under one model, unsmoothed."""
    count = sum(fooled(row) for row in rows)
    psnr = median(rows, "image_psnr")
    seen = "" if psnr is None else f", the image changed by {psnr:.0f} dB PSNR"
    noise, start = median(rows, "noise_target_pcc"), median(rows, "map_start_pcc")
    return (
        f"{method.replace('_', ' ')}: {verdict(rows)}. In {count} of {len(rows)} cases the class "
        "stayed and the explanation came nearer to the target than to the original one (median "
        f"correlation with the target {_number(median(rows, 'map_target_pcc'))}, before the attack "
        f"{_number(start)}, with random noise of the same size {_number(noise)}{seen})."
    )


def smoothing_sentence(method: str, smoothing: Smoothing, rows: Sequence[Row]) -> str | None:
    """What a smoothing buys for a method, on the pairs that both were attacked on."""
    plain = {(r.preset, r.pair): r for r in rows if r.smoothing is None}
    both = [
        (plain[r.preset, r.pair], r)
        for r in rows
        if r.smoothing == smoothing and (r.preset, r.pair) in plain
    ]
    if not both:
        return None
    before, after = [a for a, _ in both], [b for _, b in both]
    gain = (median(after, "map_original_pcc") or 0) - (median(before, "map_original_pcc") or 0)
    what = "helps" if gain > 0.05 else "makes it worse" if gain < -0.05 else "changes little"
    return (
        f"{method.replace('_', ' ')} with {smoothing}: {what}. Under attack the explanation "
        f"correlates {_number(median(after, 'map_original_pcc'))} with the original one instead "
        f"of {_number(median(before, 'map_original_pcc'))} (more is better), and "
        f"{_number(median(after, 'map_target_pcc'))} with the target instead of "
        f"{_number(median(before, 'map_target_pcc'))} (less is better; "
        f"{_number(median(after, 'map_start_pcc'))} is what it begins with)."
    )


def advice(rows: Sequence[Row]) -> list[str]:
    """What to do, given the cells of all models."""
    plain = [row for row in rows if row.smoothing is None]
    found = []
    if plain and share(plain) >= 0.3:
        found.append(
            "Do not take a single unsmoothed explanation of this model as evidence: whoever "
            "provides the image can decide what it shows."
        )
    gains = []
    for smoothing in dict.fromkeys(filter(None, (r.smoothing for r in rows))):
        some = [row for row in rows if row.smoothing == smoothing]
        if plain and share(some) < 0.5 * share(plain):
            count = sum(map(fooled, some))
            gains.append(f"{smoothing} (manipulated in {count} of {len(some)} cases")
    if gains:
        before = f"instead of {sum(map(fooled, plain))} of {len(plain)})"
        found.append(f"Explain with {' or '.join(f'{gain} {before}' for gain in gains)}.")
    elif plain and share(plain) > 0 and not any(row.smoothing is not None for row in rows):
        found.append("Try what smoothing buys: run the audit with --smoothing beta=0.8.")
    flagged = sum(bool(row.flags) for row in rows)
    if rows and flagged > 0.3 * len(rows):
        found.append(
            f"{flagged} of {len(rows)} cells carry a flag: read below why they may mislead before "
            "you quote a number."
        )
    if plain and share(plain) < 0.3:
        found.append(
            "A failed attack proves nothing: attack with more iterations or another preset before "
            "you rely on these explanations."
        )
    return found


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
