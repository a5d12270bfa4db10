"""Whether the maps of a defence are about the network: kept in the cells, and verified."""

from __future__ import annotations

import itertools

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from trompe.audit import open_run, run_audit
from trompe.audit.faithful import DELETION, INSERTION, SAME_ANSWER, STEPS
from trompe.audit.verify import Verifier
from trompe.engine import smooth

from .conftest import small
from .test_verify import changed

pytestmark = pytest.mark.usefixtures("place")


def area(run: object, row: object, inserted: bool) -> float:
    """Pixel by pixel: the most relevant ones of the image put into, or taken out of, its blur."""
    arrays = run.arrays(row)  # type: ignore[attr-defined]
    model = run.settings.models[0].load().model  # type: ignore[attr-defined]
    x, heat = arrays["x"], arrays["map_original"].flatten()
    target = int(arrays["logits_original"].argmax())
    blurred = gaussian_blur(x, [11, 11], [5.0, 5.0])
    ranked = sorted(range(len(heat)), key=lambda pixel: -float(heat[pixel]))
    scores = []
    for step in range(STEPS + 1):
        now = (blurred if inserted else x).clone().flatten(2)
        for pixel in ranked[: round(step * len(ranked) / STEPS)]:
            now[:, :, pixel] = (x if inserted else blurred).flatten(2)[:, :, pixel]
        scores.append(float(model(now.view_as(x)).softmax(1)[0, target]))
    return sum((a + b) / 2 for a, b in itertools.pairwise(scores)) / STEPS


def test_a_run_with_a_defence_keeps_the_curves_and_the_answer() -> None:
    run_audit("run", small(smoothings=("none", "beta=0.8"), pairs=2))
    run = open_run("run")
    for row in run.rows:
        assert row.values[INSERTION] == pytest.approx(area(run, row, True), abs=1e-4)
        assert row.values[DELETION] == pytest.approx(area(run, row, False), abs=1e-4)
        if row.smoothing is None:
            assert SAME_ANSWER not in row.values
            continue
        arrays = run.arrays(row)
        other = smooth(run.settings.models[0].load().model, beta=0.8)(arrays["x"])
        same = other.argmax() == arrays["logits_original"].argmax()
        assert row.values[SAME_ANSWER] == float(same)
    smoothed = [row for row in run.rows if row.smoothing is not None]
    with torch.no_grad(), changed() as db:
        db.execute(f"UPDATE metrics SET value = 0.9 WHERE name = '{INSERTION}'")
        db.execute(f"DELETE FROM metrics WHERE name = '{SAME_ANSWER}'")
    found = [one for one in Verifier(open_run("run"), trusted=None).check_all() if one.problems]
    assert len(found) == len(run.rows)
    told = [" ".join(one.problems) for one in found if one.row.id in {row.id for row in smoothed}]
    assert all(SAME_ANSWER in text and f"{INSERTION} is" in text for text in told)


def test_a_run_without_a_defence_keeps_neither() -> None:
    run_audit("run", small(pairs=1))
    (row,) = open_run("run").rows
    assert not {INSERTION, DELETION, SAME_ANSWER} & row.values.keys()
