"""What a run certifies of smoothed maps: for how many images, in words, and where it is void."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trompe.audit import Run
from trompe.audit.certified_share import ANSWER, BELOW, FAILED, VOID
from trompe.audit.leaderboard import leaderboard

_NOT_CERTIFIED = "how far a map can move at most: 'trompe certify' and 'trompe sandwich'"
_NOT_CERTIFIED_TOO = (
    "how far a map can move at most at other radii than the certified one, and how far the map "
    "without noise can: 'trompe certify' and 'trompe sandwich'"
)
_CERTIFIED = (
    "an upper bound on the movement of the SMOOTHED map, its mean over noisy copies of the image, "
    "for all changes smaller than the radius, whether an attack is known or not; it holds if the "
    "smoothed map is the one that is shown, and says nothing of the map without noise. A void "
    "bound proves nothing"
)

_WHY_NOT = {
    BELOW: "certified for a lower correlation only",
    ANSWER: "certified for the map alone, another answer is not excluded",
    VOID: "VOID: nothing at all is proved",
    FAILED: "without a certificate, because the cell failed",
}


def certificates_of(run: Run) -> list[dict[str, Any]]:
    """The certified share of each model, method and defence of a run; nothing if it has none."""
    return [
        {**{key: entry[key] for key in ("model", "method", "defence")}, **entry["certified"]}
        for entry in leaderboard(run)
        if entry.get("certified", {}).get("images")
    ]


def in_words(one: Mapping[str, Any]) -> str:
    """The certified share of one model, method and defence, for an engineer."""
    name = f"{one['method'].replace('_', ' ')} on {one['model']}"
    if one["defence"] != "none":
        name += f" (defence {one['defence']})"
    low, high = (f"{100 * end:.0f}" for end in one["interval"])
    pair = ", each cleaned by the denoiser" if one["denoiser"] else ""
    # Values are no decision: of them the map alone is certified.
    counts = one["answer_counts"]
    answer = ", or changes the answer that most noisy copies get" if counts else ""
    first = (
        f"{name}: for {one['count']} of {one['images']} images it is certified that no change of "
        f"the image smaller than {one['radius']:g} (l2, pixel units; {255 * one['radius']:.3g} of "
        f"255) moves the SMOOTHED map, the mean over {one['samples']} noisy copies (noise "
        f"{one['sigma']:g}{pair}; squares of {one['pool']} pixels), below a correlation of "
        f"{one['tau']:g}{answer} (95 % interval {low} to {high} %; each certificate holds with "
        f"{100 * one['confidence_of_each']:g} % confidence)."
    )
    rest = [f"{one['outcomes'][word]} {why}" for word, why in _WHY_NOT.items()
            if one["outcomes"][word]]  # fmt: skip
    other = f" Of the others: {'; '.join(rest)}." if rest else ""
    like = one["median_pcc_to_plain"]
    said = "" if like is None else (
        f" The smoothed map correlates with the plain one at {like:.2f} (median);"
        " of the plain map nothing is proved."
    )  # fmt: skip
    return first + other + said


def certified_sentences(run: Run) -> list[str]:
    """What is certified, a sentence or a few per model, method and defence."""
    return [in_words(one) for one in certificates_of(run)]


def certified_section(run: Run) -> dict[str, Any]:
    """The same for the report to be signed: whether there is anything, and what it says."""
    if run.settings.certify is None:
        return {"status": "not tested", "about": _NOT_CERTIFIED}
    return {"status": "tested", "about": _CERTIFIED, "shares": certificates_of(run)}


def not_certified(run: Run) -> str:
    """What the run's certificates, if any, leave open."""
    return _NOT_CERTIFIED if run.settings.certify is None else _NOT_CERTIFIED_TOO
