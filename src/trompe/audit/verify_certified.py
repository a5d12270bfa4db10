"""Recomputing the certificates of a run: bounds from counts, counts from copies drawn again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from trompe.audit.certified import COUNTED, KEPT, NOTED, certified_metrics, drawn, kept_arrays
from trompe.audit.provenance import outputs_meaning
from trompe.audit.results import Row, Run
from trompe.audit.settings import Settings
from trompe.audit.tolerances import MAP_TOLERANCE, ROUNDING, TOLERANCE, same
from trompe.explain import Method
from trompe.outputs import Outputs
from trompe.types import LoadedModel

#: By how much shares of noisy copies, and bounds from them, may differ on another machine, where
#: the maps are rounded otherwise: a copy or two may fall on the other side of a threshold.
REDRAWN = 5e-3


def kept_problems(run: Run, row: Row, arrays: Mapping[str, Tensor]) -> Iterator[str]:
    """What does not follow from the counts that were kept of a certificate, in words."""
    asked = run.settings.certification
    if asked is None:
        yield "it is a certificate although the settings ask for none"
        return
    for name in sorted(arrays.keys() ^ {"x", "target_x", *KEPT}):
        yield f"it has an array '{name}' too much, or lacks it"
    if row.flags:
        yield f"the flag '{row.flags[0]}' is none that a certificate raises"
    if row.image_number != row.target_number:
        yield "it goes towards another image"
    plan = asked.plan(arrays["x"][0].numel())
    if int(arrays["samples"].item()) != plan.looks[-1] - plan.pilot:
        yield f"it has not the {asked.samples} noisy copies of the settings"
    outputs = outputs_meaning(run.facts(row.model)) or Outputs()
    found = certified_metrics(arrays, asked, arrays["x"][0].numel(), outputs)
    if wrong := sorted(run.metric_names(row.id) ^ {*found, *NOTED}):
        yield f"it has other metrics than it must have ({', '.join(wrong[:3])})"
    for name, value in found.items():
        if not same(value, row.values.get(name), ROUNDING):
            yield f"{name} is {value:.6g}, not {row.values.get(name, math.nan):.6g}"


def drawn_problems(
    settings: Settings,
    loaded: LoadedModel,
    explainer: Method,
    row: Row,
    arrays: Mapping[str, Tensor],
) -> Iterator[str]:
    """What the same noisy copies, drawn and explained again, say otherwise than a certificate."""
    asked = settings.certification
    assert asked is not None, "the caller sees to it"
    place = next(loaded.model.parameters(), torch.empty(0)).device
    x = arrays["x"].to(place)
    found, logits = drawn(settings, loaded, explainer, x, row.image_number)
    if not torch.allclose(logits, arrays["logits_original"], rtol=TOLERANCE, atol=TOLERANCE):
        yield "the original logits differ"
    again = kept_arrays(found, logits)
    yield from _other_counts(again, arrays)
    values = certified_metrics(again, asked, x[0].numel(), loaded.outputs)
    values["pcc_to_plain"] = found.pcc_to_plain
    square = 1 / found.counted.pilot.top  # a square at the border may be certified or not
    slack = {"certified_overlap": square, "certified_iou": square}
    for name, value in values.items():
        if not same(value, row.values.get(name), REDRAWN + slack.get(name, 0.0)):
            kept = row.values.get(name, math.nan)
            yield f"{name} is {value:.6g}, not {kept:.6g}"


def _other_counts(again: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Iterator[str]:
    """Which of the counts that were kept are not those of the copies drawn again, in words."""
    samples = float(again["samples"].item())
    for name in KEPT[1:]:
        new, old = again[name].double(), kept[name].double()
        if name in ("smoothed", "standardised"):
            fits = new.shape == old.shape
            # A share of the largest entry, which of standardised maps may be negative.
            fits = fits and float((new - old).abs().max()) <= MAP_TOLERANCE * float(new.abs().max())
        elif name in COUNTED:
            fits = new.shape == old.shape
            fits = fits and float((new - old).abs().max()) <= max(2.0, REDRAWN * samples)
        else:
            fits = new.shape == old.shape and torch.allclose(new, old, rtol=REDRAWN, atol=1e-4)
        if not fits:
            yield f"'{name}' of its noisy copies is not what they give when drawn again"
