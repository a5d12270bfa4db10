"""What hardening bought and cost: the same audit of two networks, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trompe.audit import Run, chain
from trompe.audit.batches import WORST_CASE
from trompe.audit.results import Row
from trompe.audit.settings import Settings
from trompe.audit.status import Status
from trompe.audit.store import Store
from trompe.errors import UsageError
from trompe.report.before_after import before_after
from trompe.zoo import ModelSpec

IMAGES = 20


class Invented(Run):
    """A run of one network: per image the worst correlation found, and the class it answered."""

    def __init__(
        self, folder: Path, name: str, worst: dict[int, float], answers: dict[int, int]
    ) -> None:
        self.store = Store(folder, create=True)
        self.folder = folder
        self.settings = Settings(models=(ModelSpec(name),), worst_case=0.1)
        found = {"mean": [0.5] * 3, "std": [0.5] * 3, "labels": []}
        found |= {"weights_of": {name: name}, "code_of": {}}
        source = {"count": IMAGES, "content_sha256": "as it was"}
        self.record: dict[str, Any] = {
            "source": source,
            "seed": 0,
            "models": [{"name": name, "found": found}],
        }
        self.status = Status(len(worst), len(worst), 0, 0, True, IMAGES, {}, 0, {}, 1.0)
        self.versions = {"trompe": "0"}
        self.rows = []
        self.searches = [self._search(name, image, value) for image, value in worst.items()]
        with self.store.transaction() as db:
            for image, answer in answers.items():
                db.execute("INSERT INTO images VALUES (?, ?, ?, ?)", (image, str(image), 1, ""))
                db.execute(
                    "INSERT INTO screens VALUES (?, ?, ?, ?, ?, ?)",
                    (name, image, answer, 1, None, 1),
                )
            for subject in ("images", "screens:1"):
                chain.link(db, subject)

    def _search(self, name: str, image: int, worst: float) -> Row:
        values = {
            "class_kept": 1.0,
            "map_original_pcc": worst,
            "image_linf": 0.02,
            "judged": 1.0,
        }
        kind = {"model": name, "method": "gradient", "smoothing": None, "preset": WORST_CASE}
        texts = {"image": str(image), "target": str(image), "message": None}
        stored = {"x": None, "target_x": None, "arrays": None}
        return Row(id=image, values=values, flags=(), **kind, **texts, **stored)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Invented, Invented]:
    """Of 20 images 2 withstand before and 18 after; one more was attacked before alone."""
    plain = {i: 0.9 if i < 2 else 0.1 + i / 1000 for i in range(IMAGES + 1)}
    hardened = {i: 0.8 if i < 18 else 0.2 for i in range(IMAGES)}
    before = Invented(tmp_path / "a", "tiny-vgg", plain, {i: int(i < 12) for i in range(IMAGES)})
    after = Invented(
        tmp_path / "b", "tiny-vgg-robust", hardened, {i: int(i < 10) for i in range(IMAGES)}
    )
    return before, after


def test_gain_and_cost_are_those_counted_by_hand(runs: tuple[Invented, Invented]) -> None:
    found = before_after(*runs)
    (change,) = found.changes
    assert (change.before.count, change.before.n) == (2, 20)
    assert (change.after.count, change.after.n) == (18, 20)
    assert change.unknown == 0
    # In order 0.102 to 0.119 and 0.9 twice: the tenth is 0.111, the eleventh 0.112.
    assert change.similar_before == pytest.approx(0.1115)
    assert change.similar_after == 0.8
    assert "More explanations withstand, beyond both intervals" in change.sentence
    assert (found.right_before.count, found.right_after.count) == (12, 10)
    assert found.same_answer.count == 18
    assert "The intervals overlap" in found.costs[0]
    row = found.table.rows[0]
    assert row[4] == 10.0
    assert row[7] == 90.0


def test_the_other_way_round_it_is_a_loss(runs: tuple[Invented, Invented]) -> None:
    assert "Fewer withstand, beyond both" in before_after(runs[1], runs[0]).gains[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.record["source"].update(count=3), "of other images"),
        (lambda r: r.record.update(seed=1), "other settings: .*seed"),
        (lambda r: setattr(r, "status", Status(9, 8, 0, 0, True, 9, {}, 0, {}, 1.0)), "finished"),
        (
            lambda r: setattr(r, "settings", Settings((ModelSpec("a"), ModelSpec("b")))),
            "one network each",
        ),
        (lambda r: setattr(r, "searches", []), "no image in common"),
    ],
)
def test_runs_that_are_no_like_audits_are_refused(
    runs: tuple[Invented, Invented], change: Any, words: str
) -> None:
    change(runs[1])
    with pytest.raises(UsageError, match=words) as raised:
        before_after(*runs)
    assert "\n" not in str(raised.value)


def test_a_run_is_not_compared_with_its_own_network(runs: tuple[Invented, Invented]) -> None:
    with pytest.raises(UsageError, match="same network"):
        before_after(runs[0], runs[0])
