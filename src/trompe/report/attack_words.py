"""What an attack achieved, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trompe.types import LoadedModel


def attack_in_words(metrics: Mapping[str, Any], loaded: LoadedModel, folder: Path) -> str:
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
    lines.append(f"Figure: {folder / 'overview.png'}")
    return "\n".join(lines)


def _number(value: float | None, form: str = ".2f") -> str:
    return "undefined" if value is None else format(value, form)


def image_in_words(entry: Mapping[str, Any], loaded: LoadedModel) -> list[str]:
    """What happened to one image; ``after_rounding`` may be missing from its entry."""
    before, after = entry["class_before"], entry["class_after"]
    name = loaded.label(before)
    probabilities = (
        f"probability {entry['probability_before']:.3f} before, "
        f"{entry['probability_after']:.3f} after"
    )
    if before == after:
        answer = f"still '{name}', {probabilities}"
    else:
        answer = f"CHANGED from '{name}' to '{loaded.label(after)}', {probabilities}"
    target, original, change = (
        entry[part] for part in ("map_to_target", "map_to_original", "image_change")
    )
    lines = [
        f"{entry['image']}",
        f"  answer       {answer}",
        f"  explanation  now correlates {_number(target['pcc'])} with the target "
        f"(SSIM {_number(target['ssim'])}), {_number(original['pcc'])} with the original one",
        f"  image        {_changed(change)}",
    ]
    if "after_rounding" in entry:
        lines.append(f"  as 8-bit PNG {_rounded(entry)}")
    return lines


def _changed(change: Mapping[str, float]) -> str:
    if not change["linf"]:
        return "not changed at all"
    return (
        f"PSNR {change['psnr']:.1f} dB, no pixel changed by more than "
        f"{255 * change['linf']:.1f} of 255 levels"
    )


def survives(entry: Mapping[str, Any]) -> bool:
    """Whether the image as written keeps its class and its map is nearer to the target."""
    rounded = entry["after_rounding"]
    target, original = rounded["map_to_target"]["pcc"], rounded["map_to_original"]["pcc"]
    kept = rounded["class_after"] == entry["class_before"]
    return bool(kept and target is not None and target > (original or 0.0))


def _rounded(entry: Mapping[str, Any]) -> str:
    rounded = entry["after_rounding"]
    verdict = "survives" if survives(entry) else "DOES NOT SURVIVE"
    kept = "class kept" if rounded["class_after"] == entry["class_before"] else "CLASS CHANGED"
    target, original = rounded["map_to_target"]["pcc"], rounded["map_to_original"]["pcc"]
    return (
        f"{verdict}: {kept}, correlates {_number(target)} with the target, "
        f"{_number(original)} with the original one"
    )
