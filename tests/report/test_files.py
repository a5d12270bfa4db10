"""The files of an attack: complete, true, valid, and whole or absent."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import trompe
from trompe import metrics
from trompe.errors import OutputError, UsageError
from trompe.report import files, prepare_output, write_attack
from trompe.report.attack_words import image_in_words
from trompe.report.files import safe_names
from trompe.types import heatmap
from trompe.zoo.images import read_pixels

NAMES = ["photos/cat.jpg", "other/cat.png", "rocket"]
RUN = {"method": "gradient", "seed": 0, "seconds": math.inf, "place": Path("x")}


def write(folder: Path, case: Any, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": case.model,
        "explainer": case.explainer,
        "input_space": case.input_space,
        "image_names": NAMES,
        "target_names": ["dog", "dog", "text"],
        "labels": ["a", "b"],
        "run": RUN,
    }
    return write_attack(folder, case.result, **{**options, **changes})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second: test_overview.py looks at the picture, here one test is enough."""
    monkeypatch.setattr(files, "save_overview", lambda path, *_, **__: path.touch())


def test_exactly_the_promised_files_are_written(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    write(tmp_path, case, target_pixels=case.target_pixels)
    assert sorted(os.listdir(tmp_path)) == [
        "cat-2_adv.png",
        "cat_adv.png",
        "history.csv",
        "maps.safetensors",
        "metrics.json",
        "overview.png",
        "rocket_adv.png",
        "x_adv.safetensors",
    ]
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_the_tensors_are_the_results(case: Any, tmp_path: Path) -> None:
    double = dataclasses.replace(case.result, x_adv=case.result.x_adv.double())
    write(tmp_path, dataclasses.replace(case, result=double))
    stored = load_file(tmp_path / "x_adv.safetensors")
    assert list(stored) == ["x_adv"]
    assert stored["x_adv"].dtype == torch.float32
    assert torch.equal(stored["x_adv"], case.result.x_adv)
    maps = load_file(tmp_path / "maps.safetensors")
    assert torch.equal(maps["original"], case.result.map_original)
    assert torch.equal(maps["target"], case.result.map_target)
    assert torch.equal(maps["manipulated"], case.result.map_adv)


def test_the_pngs_are_the_manipulated_images(case: Any, tmp_path: Path) -> None:
    write(tmp_path, case)
    pixels = case.input_space.to_pixels(case.result.x_adv)
    for name, expected in zip(("cat", "cat-2", "rocket"), pixels, strict=True):
        levels = np.asarray(Image.open(tmp_path / f"{name}_adv.png"))
        rounded = (expected * 255).round().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(levels, rounded)


def test_metrics_json_has_the_promised_structure_and_is_what_is_returned(
    case: Any, tmp_path: Path
) -> None:
    returned = write(tmp_path, case)
    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored == returned
    assert stored["run"] == {
        "method": "gradient",
        "seed": 0,
        "seconds": None,
        "place": "x",
        "iterations": 4,
        "version": trompe.__version__,
    }
    assert len(stored["images"]) == 3
    image = stored["images"][1]
    assert set(image) == {
        "image",
        "target",
        "class_before",
        "class_after",
        "kept",
        "outputs",
        "probability_before",
        "probability_after",
        "softmax_l2",
        "logit_l2",
        "map_to_target",
        "map_to_original",
        "target_pcc_before",
        "image_change",
        "class_explained",
        "success",
        "after_rounding",
    }
    maps, change = {"mse", "ssim", "pcc"}, {"mse", "ssim", "pcc", "linf", "l2", "psnr"}
    assert set(image["map_to_target"]) == set(image["map_to_original"]) == maps
    assert set(image["image_change"]) == change
    rounded = image["after_rounding"]
    assert set(rounded) == {
        "class_after",
        "kept",
        "softmax_l2",
        "map_to_target",
        "map_to_original",
        "image_change",
    }
    assert set(rounded["map_to_target"]) == set(rounded["map_to_original"]) == maps
    assert set(rounded["image_change"]) == change


def test_the_numbers_are_those_of_the_result(case: Any, tmp_path: Path) -> None:
    result = case.result
    images = write(tmp_path, case)["images"]
    before, after = case.input_space.to_pixels(result.x), case.input_space.to_pixels(result.x_adv)
    for index, image in enumerate(images):
        assert image["image"] == NAMES[index]
        kept = int(result.target_class[index])
        assert image["class_before"] == kept
        assert image["class_after"] == int(result.logits_adv[index].argmax())
        probability = float(result.logits_adv[index].softmax(0)[kept])
        assert image["probability_after"] == pytest.approx(probability)
        pcc = metrics.pcc(result.map_adv, result.map_target)[index]
        assert image["map_to_target"]["pcc"] == pytest.approx(float(pcc))
        start = metrics.pcc(result.map_original, result.map_target)[index]
        assert image["target_pcc_before"] == pytest.approx(float(start))
        assert f"before {float(start):.2f}, SSIM" in image_in_words(image, result)[2]
        largest = (after[index] - before[index]).abs().max()
        assert image["image_change"]["linf"] == pytest.approx(float(largest), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_after_rounding_judges_the_written_file(case: Any, tmp_path: Path, training: bool) -> None:
    case.model.train(training)
    images = write(tmp_path, case)["images"]
    assert case.model.training is training
    case.model.eval()
    pixels = torch.stack(
        [read_pixels(tmp_path / f"{name}_adv.png") for name in ("cat", "cat-2", "rocket")]
    )
    x = case.input_space.from_pixels(pixels)
    logits = case.model(x).detach()
    maps = heatmap(case.explainer(case.model, x, case.result.target_class))
    for index, image in enumerate(images):
        rounded = image["after_rounding"]
        assert rounded["class_after"] == int(logits[index].argmax())
        moved = metrics.softmax_l2(case.result.logits_original, logits)[index]
        assert rounded["softmax_l2"] == pytest.approx(float(moved), rel=1e-3)
        ssim = metrics.ssim(maps, case.result.map_target)[index]
        assert rounded["map_to_target"]["ssim"] == pytest.approx(float(ssim), rel=1e-4)
        assert rounded["image_change"]["mse"] != image["image_change"]["mse"]


def test_what_json_lacks_becomes_null(case: Any, tmp_path: Path) -> None:
    def nothing(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(x)

    same = dataclasses.replace(case.result, x_adv=case.result.x)
    image = write(tmp_path, dataclasses.replace(case, result=same), explainer=nothing)["images"][0]
    assert image["image_change"]["psnr"] is None
    assert image["after_rounding"]["map_to_target"] == {"mse": None, "ssim": None, "pcc": None}


def test_the_history_has_a_row_per_iteration_and_image(case: Any, tmp_path: Path) -> None:
    write(tmp_path, case)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3
    assert list(rows[0]) == ["iteration", "image", "loss", "beta"]
    assert [(row["iteration"], row["image"]) for row in rows[2:4]] == [
        ("0", NAMES[2]),
        ("1", NAMES[0]),
    ]
    loss = torch.tensor([float(row["loss"]) for row in rows]).view(4, 3)
    torch.testing.assert_close(loss, case.result.history["loss"])


def test_an_attack_that_was_interrupted_at_once_has_an_empty_history(
    case: Any, tmp_path: Path
) -> None:
    none = dataclasses.replace(case.result, history={}, iterations=0, stopped="interrupted")
    write(tmp_path, dataclasses.replace(case, result=none))
    assert (tmp_path / "history.csv").read_text().splitlines() == ["iteration,image"]


def test_gray_networks_get_gray_pngs(tmp_path: Path, make_case: Any) -> None:
    case = make_case(channels=1)
    image = write(tmp_path, case)["images"][0]
    assert Image.open(tmp_path / "cat_adv.png").mode == "L"
    assert image["after_rounding"]["image_change"]["linf"] < 0.2


def test_a_failure_leaves_no_metrics_and_no_temporary_file(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.csv, "writer", full)
    with pytest.raises(OutputError, match=r"history\.csv.*No space left"):
        write(tmp_path, case)
    left = os.listdir(tmp_path)
    assert "metrics.json" not in left
    assert "history.csv" not in left
    assert not [name for name in left if name.startswith(".")]


def test_a_missing_folder_and_missing_names_are_refused(case: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write(tmp_path / "nowhere", case)
    with pytest.raises(UsageError, match="3 images have 1 names and 3 target names"):
        write(tmp_path, case, image_names=["one"])
    assert os.listdir(tmp_path) == []


def test_names_are_safe_and_unique() -> None:
    names = ["a b/../c d.JPG", "c d.png", "C_D", "", "..", "v1.2", "/etc/", "Käse.webp", "x" * 300]
    assert safe_names(names) == [
        "c_d",
        "c_d-2",
        "C_D-3",
        "image",
        "image-2",
        "v1.2",
        "etc",
        "Käse",
        "x" * 40,
    ]


def test_the_output_folder_is_tried_out(tmp_path: Path) -> None:
    assert prepare_output(tmp_path / "new" / "folder").is_dir()
    assert os.listdir(prepare_output(tmp_path / "new" / "folder")) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        prepare_output(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be created"):
        prepare_output(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="cannot be"):
        prepare_output("/proc/trompe")
