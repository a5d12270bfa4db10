"""Reasons not to trust a worst case, found while looking for it (AutoAttack's, carried over)."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.robustness.worst import Worst

RANDOM = "map differs between two calls"
ZERO_GRADIENT = "zero gradient"
MASKED = "black box beats white box"
SURROGATE_DISAGREES = "surrogate disagrees"
STILL_FALLING = "still falling"
NOT_FINITE = "not finite"
KINKS_REMAIN = "kinks remain"
NOTHING_JUDGED = "answer never kept"
MEMBER_FAILED = "member failed"

MEANING: dict[str, str] = {
    RANDOM: "two calls gave two maps: the model or the method draws random numbers; use "
    "version='rand'",
    ZERO_GRADIENT: "the map's gradient was exactly zero at the start, of the smoothed network too: "
    "where the map is not constant, attacks by derivatives see nothing",
    MASKED: "queries alone found a worse map than derivatives did: the gradient of the map "
    "misleads, and a stronger attack is likely",
    SURROGATE_DISAGREES: "the smoothed network's map went further than the original network's",
    STILL_FALLING: "the worst case was still getting worse at the end: a larger budget will find "
    "a worse one",
    NOT_FINITE: "a map within the radius was all zero or not finite: it counts as lost",
    KINKS_REMAIN: "the network has kinks that smoothing does not replace, or its gradient is not "
    "that of its output: derivatives of its map miss what happens there",
    NOTHING_JUDGED: "no attempt within the radius kept the network's answer: nothing is known, "
    "and the image does not count as robust",
    MEMBER_FAILED: "a member of the ensemble could not run: what the others found stands",
}

_GAP, _FALL = 0.05, 0.05
_SURROGATE_GAP = 0.15
_BEHIND = 0.5  # of a correlation: further than queries come in the last four fifths of them


def differs(first: Tensor, second: Tensor) -> Tensor:
    """Whether two maps [B, H, W] of one image are not the same but for rounding, bool [B]."""
    gap = (first - second).abs().flatten(1).amax(dim=1)
    return ~(gap <= 1e-3 * first.abs().flatten(1).amax(dim=1))


def black_box_wins(worst: Worst, query: str) -> Tensor:
    """Whether the member ``query`` found a clearly lower correlation than all others, bool [B]."""
    white = [values["pcc"] for name, values in worst.by_member.items() if name != query]
    if query not in worst.by_member or not white:
        return torch.zeros_like(worst.judged, dtype=torch.bool)
    return worst.by_member[query]["pcc"] < torch.stack(white).amin(dim=0) - _GAP


def out_of_reach(worst: Worst, query: str) -> bool:
    """Whether the member ``query`` is so far behind, of every image, that it cannot catch up."""
    white = [values["pcc"] for name, values in worst.by_member.items() if name != query]
    if query not in worst.by_member or not white:
        return False
    best = torch.stack(white).amin(dim=0)
    return bool((worst.by_member[query]["pcc"] > best + _BEHIND).all())


def falling(worst: Worst, member: str) -> Tensor:
    """Whether a member's worst correlation fell by 0.05 in the last fifth of its steps, [B]."""
    trace = worst.trace.get(member, [])
    part = len(trace) // 5
    if part < 1:
        return torch.zeros_like(worst.judged, dtype=torch.bool)
    return trace[-1] < trace[-1 - part] - _FALL


def surrogate_further(worst: Worst, member: str, surrogate: Tensor) -> Tensor:
    """Whether the surrogate's last correlation [B] lies far below what was judged, bool [B]."""
    if member not in worst.by_member:
        return torch.zeros_like(worst.judged, dtype=torch.bool)
    return surrogate < worst.by_member[member]["pcc"] - _SURROGATE_GAP
