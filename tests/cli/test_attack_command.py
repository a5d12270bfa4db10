from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trompe.cli.parts import make_part
from trompe.errors import UsageError
from trompe.explain import explainers
from trompe.report.attack_words import survives
from trompe.zoo.images import default_images, save_png

QUICK = ("--iterations", 3)


@pytest.fixture
def photo(folder: Path) -> Path:
    path = folder / "photo.png"
    save_png(path, default_images(64)["coffee"])
    return path


def test_the_defaults_attack_the_cat(run: Callable, folder: Path) -> None:
    code, out, err = run("attack", *QUICK)
    assert code == 0, err
    written = {path.name for path in (folder / "trompe-out" / "attack").iterdir()}
    assert written >= {
        "metrics.json",
        "x_adv.safetensors",
        "maps.safetensors",
        "overview.png",
        "history.csv",
        "cat_adv.png",
    }
    for word in ("cat", "still", "correlates", "image", "8-bit PNG", "overview.png"):
        assert word in out
    assert "similarity" in err  # the progress bar


def test_an_unchanged_image_is_nothing_found(run: Callable, folder: Path) -> None:
    code, out, err = run("attack", "--iterations", 1)
    assert code == 0, err
    assert "not changed at all: nothing that was tried" in out


def test_the_default_network_is_a_real_one(
    run: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TROMPE_MODEL")
    code, out, err = run("attack", "--iterations", 1, "--capture", "never", "--output", "o")
    assert code == 0, err
    assert "'tiger cat'" in out
    metrics = json.loads(Path("o/metrics.json").read_text())
    assert metrics["run"]["model"] == "efficientnet-lite0"
    assert load_file("o/x_adv.safetensors")["x_adv"].shape == (1, 3, 224, 224)


def test_a_folder_stands_for_its_images_and_a_name_for_a_photo(run: Callable, folder: Path) -> None:
    photos = folder / "photos"
    photos.mkdir()
    for name, pixels in default_images(64).items():
        save_png(photos / f"{name}.png", pixels)
    code, out, err = run("attack", photos, "--json", "--quiet", "--output", "a", *QUICK)
    assert code == 0, err
    names = [entry["image"] for entry in json.loads(out)["images"]]
    assert names == [str(photos / f"{name}.png") for name in ("cat", "coffee", "rocket")]
    code, out, err = run("attack", "coffee", "--target", "cat", "--output", "b", *QUICK)
    assert code == 0, err
    assert "Next:" in out
    built_in = load_file("b/x_adv.safetensors")
    code, out, err = run(
        "attack", photos / "coffee.png", "--target", photos / "cat.png", "--output", "c", *QUICK
    )
    assert "Next:" not in out
    for name, tensor in load_file("c/x_adv.safetensors").items():
        assert torch.equal(tensor, built_in[name]), name


def test_methods_by_usual_names(run: Callable, refused: Callable, photo: Path) -> None:
    code, out, err = run(
        "attack", photo, "--method", "saliency", "--json", "--quiet", "--output", "o", *QUICK
    )
    assert code == 0, err
    assert json.loads(out)["run"]["method"] == "gradient"
    assert "did you mean lrp" in refused("attack", photo, "--method", "lpr")


def test_json_is_all_that_is_on_stdout(run: Callable, photo: Path) -> None:
    code, out, err = run("attack", photo, "--json", "--quiet", "--seed", 5, "--output", "o", *QUICK)
    assert (code, err) == (0, "")
    metrics = json.loads(out)
    assert metrics == json.loads(Path("o/metrics.json").read_text())
    run_part = metrics["run"]
    assert run_part["method"] == "gradient"
    assert run_part["iterations"] == 3
    assert run_part["seed"] == 5
    assert metrics["images"][0]["image"] == str(photo)
    assert metrics["images"][0]["target"] == "rocket"


def test_the_image_whose_map_is_the_target_is_named(run: Callable, photo: Path) -> None:
    assert run("attack", photo, "--output", "o", *QUICK).out.startswith("Target: the map of rocket")
    written = run("attack", photo, "--target-text", "no", "--output", "w", *QUICK).out
    assert written.startswith("Target: no\n")
    alone = run("attack", photo, "--objective", "unlike", "--output", "p", *QUICK).out
    assert "Target:" not in alone


def test_how_the_steps_run_can_be_chosen(run: Callable, photo: Path) -> None:
    for capture, runner in (("auto", "eager"), ("never", "eager"), ("graph", "graph")):
        code, out, err = run(
            *("attack", photo, "--json", "--quiet", "--capture", capture, "--output", "o", *QUICK)
        )
        assert code == 0, err
        settings = json.loads(out)["run"]["settings"]
        assert (settings["capture"], settings["runner"]) == (capture, runner)
    code, _, err = run("attack", photo, "--capture", "cuda-graph", "--output", "o", *QUICK)
    assert code == 2
    assert "trompe: the step cannot be captured: a CUDA graph needs" in err


def test_several_images_are_attacked_in_batches_as_if_each_were_alone(
    run: Callable, folder: Path
) -> None:
    for name, pixels in default_images(64).items():
        save_png(folder / f"{name}.png", pixels)
    names = ["cat.png", "coffee.png", "rocket.png"]
    text = ("--target-text", "hello", "--quiet")
    assert run("attack", *names, *text, "--batch-size", 2, "--output", "all", *QUICK).code == 0
    assert run("attack", names[2], *text, "--output", "one", *QUICK).code == 0
    every = load_file("all/x_adv.safetensors")["x_adv"]
    alone = load_file("one/x_adv.safetensors")["x_adv"]
    assert every.shape == (3, 3, 64, 64)
    torch.testing.assert_close(every[2], alone[0], rtol=1e-4, atol=1e-4)
    images = json.loads(Path("all/metrics.json").read_text())["images"]
    assert [entry["image"] for entry in images] == names


@pytest.mark.parametrize("stop_in_batch", [0, 1])
def test_ctrl_c_keeps_the_best_so_far(
    run: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch, stop_in_batch: int
) -> None:
    @contextmanager
    def interrupting(*_: object, **__: object) -> Iterator[Callable[..., None]]:
        begun = 0

        def update(done: int, total: int, numbers: object) -> None:
            nonlocal begun
            begun += done == 1
            if done == 2 and begun == stop_in_batch + 1:
                raise KeyboardInterrupt

        yield update

    # The package's attribute of the module's name is the command.
    monkeypatch.setattr(sys.modules["trompe.cli.attack"], "progress_bar", interrupting)
    for name, pixels in default_images(64).items():
        save_png(folder / f"{name}.png", pixels)
    code, out, _ = run(
        "attack", "cat.png", "coffee.png", "rocket.png", "--batch-size", 1, "--output", "o", *QUICK
    )
    assert code == 130
    assert "interrupted" in out
    metrics = json.loads(Path("o/metrics.json").read_text())
    assert metrics["run"]["stopped"] == "interrupted"
    assert len(metrics["images"]) == stop_in_batch + 1


@pytest.mark.parametrize(
    "method", [name for name in explainers.names() if name != "attention_rollout"]
)
def test_every_method_can_be_attacked(run: Callable, method: str, folder: Path) -> None:
    patterns: tuple[object, ...] = ()
    if method == "pattern_attribution":
        pixels = default_images(64)
        for name in pixels:
            save_png(folder / f"{name}.png", pixels[name])
        assert run("patterns", "--data", folder, "--quiet", "--output", "p.safetensors").code == 0
        patterns = ("--patterns", "p.safetensors")
    code, _, err = run("attack", "--method", method, *patterns, "--iterations", 1, "--quiet")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "options",
    [
        ("--beta", 0.8),
        ("--smoothgrad", 2),
        ("--method", "expected_gradients", "--chunk", 8, "--batch-size", 1),
        ("--smooth-pooling", 1, "--constant", "logits", "--prefactors", 1e11, 10),
        ("--beta-growth", 30, 300, "--lr", 1e-3, "--threads", 1),
        ("--model", "tiny-resnet", "--method", "lrp"),
    ],
)
def test_options_are_passed_on(run: Callable, options: tuple[object, ...]) -> None:
    code, _, err = run("attack", *options, "--iterations", 2, "--quiet", "--output", "o")
    assert (code, err) == (0, "")


def test_the_networks_own_gradient_has_no_derivative_and_the_user_is_told(run: Callable) -> None:
    code, _, err = run("attack", "--no-beta-growth", *QUICK)
    assert code == 0
    assert "gradient is zero" in err


def test_targets_from_an_image_a_text_and_a_map(run: Callable, photo: Path) -> None:
    np.save("map.npy", np.eye(64))
    for target in (("--target", photo), ("--target-text", "hello"), ("--target-map", "map.npy")):
        code, _, err = run("attack", *target, "--quiet", "--output", "o", *QUICK)
        assert (code, err) == (0, ""), target


def test_a_target_map_of_another_size_is_resized_with_a_notice(run: Callable, folder: Path) -> None:
    np.save("map.npy", np.eye(100))
    code, _, err = run("attack", "--target-map", "map.npy", *QUICK)
    assert code == 0
    assert "resized from 100 x 100 to 64 x 64" in err


@pytest.mark.parametrize("mode", ["RGBA", "L", "CMYK", "P", "I;16"])
def test_unusual_pictures_are_converted(run: Callable, folder: Path, mode: str) -> None:
    levels = (np.random.default_rng(0).random((80, 100, 3)) * 255).astype(np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(levels).convert(mode)
    path = folder / f"odd.{'tiff' if mode == 'CMYK' else 'png'}"
    picture.save(path)
    code, _, err = run("attack", path, "--quiet", "--output", "o", *QUICK)
    assert (code, err) == (0, "")


def test_other_files_in_the_output_folder_are_left_alone(run: Callable, folder: Path) -> None:
    (folder / "o").mkdir()
    (folder / "o" / "thesis.txt").write_text("three years of work")
    for _ in range(2):
        assert run("attack", "--quiet", "--output", "o", *QUICK).code == 0
    assert (folder / "o" / "thesis.txt").read_text() == "three years of work"


def test_survival_needs_the_class_and_a_map_nearer_to_the_target() -> None:
    def entry(after: int, target: float | None, original: float | None) -> dict[str, object]:
        maps = {"map_to_target": {"pcc": target}, "map_to_original": {"pcc": original}}
        found = {"map_to_target": {"pcc": 0.9}, "map_to_original": {"pcc": 0.2}}
        return {**found, "after_rounding": {"kept": after == 1, **maps}}

    assert survives(entry(1, 0.9, 0.2))
    assert not survives(entry(2, 0.9, 0.2))
    assert not survives(entry(1, 0.3, 0.6))
    assert not survives(entry(1, None, None))


def test_survival_without_a_target_needs_a_map_that_stays_away() -> None:
    def entry(moved: float, rounded: float | None) -> dict[str, object]:
        none = {"map_to_target": {"pcc": None}}
        after = {"kept": True, **none, "map_to_original": {"pcc": rounded}}
        return {
            **none,
            "map_to_original": {"pcc": moved},
            "after_rounding": after,
        }

    assert survives(entry(0.1, 0.2))
    assert not survives(entry(0.1, 0.9))
    assert not survives(entry(0.1, None))


def test_parts_are_written_with_their_options() -> None:
    from trompe.attacks import L2Ball, LInfBall, ScaledAdam

    assert make_part("constraint", "linf:8/255") == LInfBall(8 / 255)
    assert make_part("constraint", "l2:radius=0.5") == L2Ball(0.5)
    assert make_part("step", "scaled_adam:0.01,momentum=0.5") == ScaledAdam(0.01, momentum=0.5)


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        ("constraint", "l3:1", "unknown constraint 'l3': choose from"),
        ("constraint", "l2", "needs radius, as in l2:radius="),
        ("constraint", "l2:size=3", "no option 'size': it has radius"),
        ("constraint", "l2:1,2", "no option for '2'"),
        ("constraint", "l2:-1", "radius must be positive"),
        ("channel", "identity:3", "no option for '3'"),
    ],
)
def test_parts_that_cannot_be_made(kind: str, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        make_part(kind, text)
    assert "\n" not in str(caught.value)
