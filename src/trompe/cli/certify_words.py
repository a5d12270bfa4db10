"""What ``trompe certify`` proved, in numbers and words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trompe.certificates import Certificate, NoiseCertificate
    from trompe.types import LoadedModel


def _distance(radius: float, norm: str) -> str:
    """A radius in words."""
    return f"{radius:g} ({norm}, pixel units; {255 * radius:.3g} of 255)"


def _below(value: float) -> str:
    """Three digits, rounded down: a bound from below stays one."""
    return f"{math.floor(1000 * value) / 1000:.3f}"


def _above(value: float) -> str:
    """Three digits, rounded up: a bound from above stays one."""
    return f"{math.ceil(1000 * value) / 1000:.3f}"


def proof_in_words(found: Certificate, k: int) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a proof, and what they say; the last line is the verdict."""
    overlap = float(found.topk_overlap(k)[0])
    values = {
        "radius": found.radius,
        "gradient_l2": float(found.gradient_l2[0]),
        "normal_l2": float(found.normal_l2[0]),
        "heatmap_l1": float(found.heatmap_l1[0]),
        "curvature": float(found.curvature[0]) if found.curvature[0].isfinite() else None,
        "topk": k,
        "topk_overlap": overlap,
        "given_by": found.winners[0],
    }
    lines = []
    for name, what, most in (
        ("gradient_l2", "gradient (l2)", ""),
        ("normal_l2", "normalised gradient (l2)", " of 2"),
        ("heatmap_l1", "heat map (l1)", " of 2"),
    ):
        given = found.winners[0][name]
        lines.append(f"  {what:<26} changes by at most {values[name]:.4g}{most}  [{given}]")
    lines.append(f"  {f'top {k} pixels':<26} at least {overlap:.0%} stay")
    where = _distance(found.radius, found.norm)
    if float(found.heatmap_l1[0]) < 2:
        sure = "" if found.confidence == 1 else f", with {found.confidence:.0%} confidence"
        lines.append(
            f"No change of the image smaller than {where} can move the heat map by more than "
            f"{_above(float(found.heatmap_l1[0]))} of 2 (l1){sure}."
        )
    else:
        lines.append(
            f"VOID: for changes of the image up to {where} nothing is proved: as far as is known "
            "the heat map may turn into any other. A smaller --radius or --method noise may help."
        )
    return values, lines


def _decision(found: NoiseCertificate, loaded: LoadedModel) -> tuple[str, str]:
    """What most noisy copies are, and that it stays; nothing of values, which are no decision."""
    meaning = loaded.outputs.meaning
    if meaning == "value":
        return "", ""
    if meaning == "labels":
        return "of the same labels", ", labels stay"
    return loaded.answer_label(int(found.label[0])), ", answer stays"


def noise_in_words(
    found: NoiseCertificate, loaded: LoadedModel, explainer: str
) -> tuple[dict[str, Any], list[str]]:
    """The numbers from noisy copies, and what they say; the last line is the verdict."""
    rows, lines = [], []
    good: list[tuple[float, float]] = []
    decision, stays = _decision(found, loaded)
    for index, radius in enumerate(found.radii):
        void = bool(found.void[0, index])
        row = {
            "radius": radius,
            "pcc": None if void else float(found.pcc[0, index]),
            "heatmap_l1": float(found.heatmap_l1[0, index]),
            "topk_overlap": float(found.overlap[0, index]),
            "topk_iou": float(found.iou[0, index]),
            "votes_certified": float(found.votes_certified[0, index]),
            "label_kept": bool(found.label_kept[0, index]),
        }
        rows.append(row)
        pcc = float(found.pcc[0, index])
        known = "VOID (nothing known)" if void else f"at least {_below(pcc)}"
        good += [] if void else [(radius, pcc)]
        moved = _above(float(found.heatmap_l1[0, index]))
        lines.append(
            f"  radius {radius:<8g} correlation {known}, l1 change at most {moved} of 2, "
            f"{row['topk_overlap']:.0%} of the top {found.top} "
            f"squares stay{stays if row['label_kept'] else decision and ', answer may change'}"
        )
    share = float(found.label_share[0])
    said = f"{share:.0%} of the noisy copies are {decision}; " if decision else ""
    if loaded.outputs.meaning == "classes" and int(found.label[0]) != int(found.target[0]):
        said = said.replace("; ", ", NOT the class explained; ")
    like = float(found.pcc_to_plain[0])
    lines.append(f"  {said}the smoothed map correlates with the plain one at {like:.2f}")
    what = f"the smoothed {explainer} map (noise {found.sigma:g}, squares of {found.pool} pixels)"
    sure = f"{found.confidence:.0%} confidence, {found.samples[0]} noisy copies"
    if good:
        radius, pcc = max(good)
        where = _distance(radius, found.norm)
        verdict = (
            f"No change of the image smaller than {where} can move {what} below a correlation of "
            f"{_below(pcc)} with what it is now; {sure}; of the plain map nothing is proved."
        )
    else:
        where = _distance(min(found.radii), found.norm)
        verdict = (
            f"VOID: for changes of the image up to {where} nothing is known of how {what} "
            f"correlates with what it is now ({sure}): more --samples, a smaller --radius, a "
            "larger --sigma or --pool help."
        )
    values = {
        "explainer": explainer,
        "sigma": found.sigma,
        "samples": found.samples[0],
        "pool": found.pool,
        "top": found.top,
        "voted_class": int(found.label[0]),
        "voted_share": share,
        "voted_radius": float(found.label_radius[0]),
        "pcc_to_plain": float(found.pcc_to_plain[0]),
        "radii": rows,
    }
    return values, [*lines, verdict]
