from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from trompe.audit import ModelSpec, open_run, run_audit
from trompe.audit.changed_options import changed_options
from trompe.audit.planning import candidate_pairs
from trompe.audit.store import FILE
from trompe.errors import OutputError, PatternError, StoreError, TrompeError, UsageError

from .conftest import small

pytestmark = pytest.mark.usefixtures("place")


def test_every_combination_is_one_cell_with_metrics_arrays_and_control() -> None:
    settings = small(methods=("gradient", "lrp"), smoothings=("none", "beta=0.8"))
    status = run_audit("run", settings)
    assert (status.cells, status.done, status.errors, status.claimed) == (16, 16, 0, 0)
    run = open_run("run")
    assert {row.kind[1:] for row in run.rows} == {
        (method, smoothing, "fast")
        for method in ("gradient", "lrp")
        for smoothing in ("none", "beta=0.8")
    }
    row = run.rows[0]
    assert row.values["class_kept"] == 1
    assert {"noise_target_pcc", "map_target_ssim", "seconds", "beta_1_target_pcc"} <= set(
        row.values
    )
    arrays = run.arrays(row)
    assert arrays["x_adv"].shape == arrays["x"].shape == arrays["target_x"].shape == (1, 3, 16, 16)
    assert arrays["history_loss"].shape == (10,)
    assert run.versions["torch"] == torch.__version__


def test_the_same_command_does_nothing_more_and_other_settings_are_refused() -> None:
    run_audit("run", small())
    before = {p: p.stat().st_mtime_ns for p in Path("run/arrays").rglob("*")}
    first = [(r.id, r.values) for r in open_run("run").rows]
    assert run_audit("run", small()).complete
    assert first == [(r.id, r.values) for r in open_run("run").rows]
    assert before == {p: p.stat().st_mtime_ns for p in Path("run/arrays").rglob("*")}
    with pytest.raises(UsageError, match=r"--iterations: 10 -> 11; --seed: 0 -> 1:"):
        run_audit("run", small(iterations=11, seed=1))
    (Path("images") / "new.png").write_bytes((Path("images") / "i0000.png").read_bytes())
    with pytest.raises(UsageError, match="the images of --images: 12 -> 13:"):
        run_audit("run", small())


MODEL = {"name": "net", "mean": None, "weights": None, "found": {"labels": ["a"], "mean": [0.5]}}
CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"methods": ["lrp"]}, {"methods": ["lrp", "ig"]}, ["--method: lrp -> lrp ig"]),
    ({"batch_size": None}, {"batch_size": 2}, ["--batch-size: not given -> 2"]),
    ({"keep_wrong": False}, {"keep_wrong": True}, ["--keep-wrong: not given -> given"]),
    ({}, {"worst_case": 100.0}, ["--worst-case: none (--no-worst-case) -> 100.0"]),
    ({"pair_list_sha256": "a"}, {"pair_list_sha256": "b"}, ["the file of --pair-list: changed"]),
    (
        {"models": [MODEL]},
        {"models": [MODEL | {"mean": [0.1], "found": {"labels": ["a"], "mean": [0.1]}}]},
        ["--mean: not given -> 0.1"],
    ),
    (
        {"models": [MODEL]},
        {"models": [MODEL | {"found": {"labels": ["b"], "mean": [0.5]}}]},
        ["what --model net stands for: changed (found.labels)"],
    ),
    ({"models": [MODEL]}, {"models": [MODEL | {"name": "b"}]}, ["--model: net -> b"]),
    (
        {"models": [MODEL]},
        {"models": [MODEL | {"weights": "w.pt"}]},
        ["--model net: not given -> w.pt"],
    ),
    ({"models": [MODEL], "seed": 1}, {"models": [dict(MODEL)], "seed": 1}, []),
]


@pytest.mark.parametrize(("before", "now", "said"), CHANGES)
def test_what_changed_is_said_by_the_options_as_they_are_typed(
    before: dict[str, Any], now: dict[str, Any], said: list[str]
) -> None:
    assert changed_options(before, now) == said


def test_corrupt_images_are_counted_and_skipped() -> None:
    for number in (0, 5):
        Path(f"images/i{number:04d}.png").write_bytes(b"no image")
    status = run_audit("run", small(pairs=30))
    assert status.done == status.cells == 30
    names = {name for row in open_run("run").rows for name in row.pair}
    assert not names & {"i0000.png", "i0005.png"}
    assert status.corrupt == 2


def test_images_the_model_gets_wrong_are_skipped_and_counted() -> None:
    names = sorted(path.name for path in Path("images").iterdir())
    lines = [f"images/{name},{i % 5}" for i, name in enumerate(names)]
    Path("images.csv").write_text("\n".join(["file,class", *lines]))
    with contextlib.suppress(UsageError):  # no two may be right
        run_audit("run", small(images="images.csv", pairs=200, iterations=1, batch_size=50))
    run = open_run("run")
    assert run.status.wrong["smallnet:net"] > 0
    screened = "SELECT images.name, class, label FROM screens JOIN images ON id = image"
    right = {name for name, seen, label in run.store.rows(screened) if seen == label}
    assert {name for row in run.rows for name in row.pair} <= right
    status = run_audit("kept", small(images="images.csv", pairs=5, keep_wrong=True))
    assert (status.cells, status.wrong) == (5, {})


def test_a_cell_that_fails_is_recorded_and_the_others_go_on() -> None:
    status = run_audit("run", small(methods=("attention_rollout", "gradient")))
    assert (status.done, status.errors) == (4, 4)
    assert list(status.failures.values()) == [4]
    failed = [row for row in open_run("run").rows if row.message]
    assert all("attention" in (row.message or "") for row in failed)


def test_a_method_without_its_patterns_is_refused_before_the_run_begins() -> None:
    for method in ("pattern_attribution", "pattern_net"):
        with pytest.raises(PatternError, match="--patterns"):
            run_audit("run", small(methods=(method, "gradient")))
        assert not Path("run").exists()


def test_given_pairs() -> None:
    Path("pairs.csv").write_text("image,target\ni0003.png,i0001.png\ni0002.png,i0003.png\n")
    run_audit("run", small(pair_list="pairs.csv"))
    pairs = [row.pair for row in open_run("run").rows]
    assert pairs == [("i0003.png", "i0001.png"), ("i0002.png", "i0003.png")]
    Path("bad.csv").write_text("image,target\ni0003.png,nothing.png\n")
    with pytest.raises(UsageError, match=r"nothing\.png"):
        run_audit("other", small(pair_list="bad.csv"))


def test_candidate_pairs_are_all_pairs_once_and_disjoint_first() -> None:
    for count in (2, 3, 6, 7):
        pairs = list(candidate_pairs(count, 3))
        assert sorted(pairs) == sorted((i, j) for i in range(count) for j in range(count) if i != j)
        first = [image for pair in pairs[: count // 2] for image in pair]
        assert len(set(first)) == len(first)
    assert list(candidate_pairs(9, 0)) != list(candidate_pairs(9, 1))


def test_a_damaged_store_is_left_as_it_is() -> None:
    run_audit("run", small())
    path = Path("run") / FILE
    for content in (b"nonsense" * 1000, path.read_bytes()[:6000] + b"\xff" * 9000):
        path.write_bytes(content)
        for leftover in Path("run").glob(f"{FILE}-*"):
            leftover.unlink()
        with pytest.raises(StoreError, match="damaged"):
            run_audit("run", small())
        assert path.read_bytes() == content


def test_a_damaged_array_is_named_and_left_as_it_is() -> None:
    run_audit("run", small())
    run = open_run("run")
    path = run.store.arrays.path(run.rows[0].arrays or "")
    content = path.read_bytes()[:-1] + b"!"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        run.arrays(run.rows[0])
    with pytest.raises(StoreError, match="damaged"):
        run.store.arrays._check(path, path.stem, content)
    assert path.read_bytes() == content


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trompe.audit.arrays import ArrayStore

    calls = 0
    put = ArrayStore.put

    def full(self: ArrayStore, tensors: object) -> str:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise OutputError("cannot write: No space left on device")
        return put(self, tensors)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ArrayStore, "put", full)
        with pytest.raises(OutputError, match="No space"):
            run_audit("run", small())
    assert 0 < len(open_run("run").done) < 4
    assert run_audit("run", small()).done == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothings": ("beta=x",)}, "smoothing"),
        ({"smoothings": ("smoothgrad=0",)}, "smoothing"),
        ({"methods": ("smoothgrad",)}, "is a smoothing"),
        ({"methods": ("nothing",)}, "unknown explanation method"),
        ({"presets": ("nothing",)}, "unknown preset"),
        ({"pairs": 0}, "at least 1"),
        ({"models": ()}, "at least one"),
        ({"methods": ("gradient", "gradient")}, "twice"),
        ({"images": "nowhere"}, "nowhere"),
        ({"images": "torchvision:Nothing"}, "no data set"),
        ({"models": (ModelSpec("tiny-vgg", "nowhere.safetensors"),)}, "nowhere"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(TrompeError, match=message):
        run_audit("run", small(**changes))
    assert not Path("run").exists()
