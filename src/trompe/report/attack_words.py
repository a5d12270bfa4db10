"""What an attack achieved, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Labelled(Protocol):
    """What names the classes: a loaded model, or the result of an attack."""

    def label(self, index: int) -> str:
        """The readable name of output ``index``."""
        ...

    def answer_label(self, answer: int) -> str:
        """The readable name of an answer."""
        ...


#: On which scale the change of an output is measured, by what the outputs mean.
SCALE = {"classes": "softmax", "binary": "probability", "labels": "probabilities", "value": "value"}
_KEPT = {
    "classes": ("class kept", "CLASS CHANGED"),
    "binary": ("decision kept", "DECISION CHANGED"),
    "labels": ("labels kept", "LABELS CHANGED"),
    "value": ("value kept", "VALUE CHANGED"),
}


def kept_in_words(kept: bool, meaning: str) -> str:
    """Whether the answer is the same, by what the outputs mean."""
    return _KEPT[meaning][0 if kept else 1]


def attack_in_words(metrics: Mapping[str, Any], loaded: Labelled, folder: Path) -> str:
    """A few lines per image, and where the figure lies.

    Args:
        metrics: the content of ``metrics.json``.
        loaded: the attacked model; names the classes.
        folder: where the results are.
    """
    run = metrics["run"]
    lines = [line for entry in metrics["images"] for line in image_in_words(entry, loaded)]
    if run["stopped"] != "finished":
        lines.append(
            f"Ended early ({run['stopped']}) after {run['iterations']} steps: the best so far."
        )
    if unseen := run.get("settings", {}).get("remaining_kinks"):
        more = f" and {len(unseen) - 2} more" if len(unseen) > 2 else ""
        lines.append(
            f"The attack may not have seen past {', '.join(unseen[:2])}{more}: what did not move "
            "proves nothing."
        )
    lines.append(f"Figure: {folder / 'overview.png'}")
    return "\n".join(lines)


def number(value: float | None, form: str = ".2f") -> str:
    """A number, or that there is none; what rounds to zero has no sign."""
    if value is None:
        return "undefined"
    text = format(value, form)
    return text.removeprefix("-") if float(text) == 0 else text


def image_in_words(entry: Mapping[str, Any], loaded: Labelled) -> list[str]:
    """What happened to one image; ``after_rounding`` may be missing from its entry."""
    before, after = entry["class_before"], entry["class_after"]
    meaning = entry.get("outputs", "classes")
    shown = {
        "binary": f"probability of '{loaded.label(0)}'",
        "labels": f"probability of '{loaded.label(before)}'",
        "value": loaded.label(before),
    }.get(meaning, "probability")
    form = ".4g" if meaning == "value" else ".3f"  # of any size and unit, unlike a probability
    first, last = (format(entry[f"probability_{when}"], form) for when in ("before", "after"))
    numbers = f"{shown} {first} before, {last} after"
    if meaning in ("labels", "value"):
        answer = f"{kept_in_words(entry['kept'], meaning)}, {numbers}"
    elif before == after:
        answer = f"still '{loaded.answer_label(before)}', {numbers}"
    else:
        names = f"'{loaded.answer_label(before)}' to '{loaded.answer_label(after)}'"
        answer = f"CHANGED from {names}, {numbers}"
    sides = entry.get("sides", 2)
    target, original, change = (
        entry[part] for part in ("map_to_target", "map_to_original", "image_change")
    )
    towards = ""
    if target["pcc"] is not None:
        start = entry.get("target_pcc_before")  # results of an earlier version have none
        before = "" if start is None else f"before {number(start)}, "
        ssim = number(target["ssim"])
        towards = f"{number(target['pcc'])} with the target ({before}SSIM {ssim}), "
    lines = [
        f"{entry['image']}",
        f"  answer       {answer}",
        f"  explanation  now correlates {towards}{number(original['pcc'])} with the original one",
        f"  {_CALLED[sides]:<12} {_changed(change, sides)}",
    ]
    if "after_rounding" in entry:
        lines.append(f"  as 8-bit PNG {_rounded(entry)}")
    for channel, left in entry.get("after", {}).items():
        lines.append(f"  after {channel}: {_left(left, meaning)}")
    return lines


def _left(left: Mapping[str, float | None], meaning: str) -> str:
    """What is left after a channel."""
    kept = kept_in_words(bool(left["class_kept"]), meaning)
    target = left["target_pcc"]
    towards = "" if target is None else f"{number(target)} with the target, "
    return (
        f"{kept}, correlates {towards}{number(left['original_pcc'])} with the original one "
        f"(the original image's own map: {number(left['clean_pcc'])})"
    )


_CALLED = {1: "signal", 2: "image", 3: "volume"}


def _changed(change: Mapping[str, float], sides: int) -> str:
    if not change["linf"]:
        return (
            "not changed at all: nothing that was tried came nearer to the aim and kept the "
            "answer, which proves nothing; more steps may find something"
        )
    if sides != 2:
        return (
            f"PSNR {change['psnr']:.1f} dB, no value changed by more than "
            f"{100 * change['linf']:.2g} % of the range"
        )
    return (
        f"PSNR {change['psnr']:.1f} dB, no pixel changed by more than "
        f"{255 * change['linf']:.1f} of 255 levels"
    )


def survives(entry: Mapping[str, Any]) -> bool:
    """Whether the image as written keeps its class and what became of its map.

    That is: its map is nearer to the target than to the original one; or, where no map was aimed
    at, at least half of its distance to the original one (1 - PCC) is left.
    """
    rounded = entry["after_rounding"]
    target, original = rounded["map_to_target"]["pcc"], rounded["map_to_original"]["pcc"]
    if not rounded["kept"]:
        return False
    if entry["map_to_target"]["pcc"] is not None:  # a map was aimed at
        return target is not None and target > (original or 0.0)
    moved = entry["map_to_original"]["pcc"]
    # No map was aimed at: what counts is that the map stays as far from the original one.
    return original is not None and moved is not None and original < (1 + moved) / 2


def _rounded(entry: Mapping[str, Any]) -> str:
    rounded = entry["after_rounding"]
    verdict = "survives" if survives(entry) else "DOES NOT SURVIVE"
    kept = kept_in_words(rounded["kept"], entry.get("outputs", "classes"))
    target, original = rounded["map_to_target"]["pcc"], rounded["map_to_original"]["pcc"]
    towards = "" if target is None else f"{number(target)} with the target, "
    return f"{verdict}: {kept}, correlates {towards}{number(original)} with the original one"
