"""``trompe robustness``: words, files and exit codes that agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trompe.cli.robustness import verdict
from trompe.robustness import kept_batches, many_images
from trompe.types import Preprocessing
from trompe.zoo.images import default_images, save_png

NETWORKS = """
import torch
from torch import nn

class Curved(nn.Module):
    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(192, 16, generator=draw))
        self.last = nn.Parameter(torch.randn(16, 4, generator=draw))

    def forward(self, x):
        return torch.sin(x.flatten(1) @ self.first / 3) @ self.last

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

def curved(): return Curved()

class Mean(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), -0.3 * x.mean((1, 2, 3))], dim=1)

def mean(): return Mean()

class Late(Curved):
    passes, until = 0, 300

    def forward(self, x):
        Late.passes += 1
        found = super().forward(x)
        if Late.passes <= Late.until:
            return found
        if Late.until == 301:
            raise ValueError("no more")
        return found.detach()

def late():
    Late.passes, Late.until = 0, 300
    return Late()

def raising():
    Late.passes, Late.until = 0, 301
    return Late()

def early():
    Late.passes, Late.until = 0, 20
    return Late()
"""

FAST = ("--size", 8, "--budget", 0.02, "--radius", "4/255", "--quiet")


@pytest.fixture
def networks(folder: Path) -> str:
    name = f"robust_{folder.name}"
    (folder / f"{name}.py").write_text(NETWORKS)
    return name


@pytest.fixture
def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for name, pixels in default_images(how=Preprocessing(8, 8)).items():
        save_png(folder / "photos" / f"{name}.png", pixels)
    return folder / "photos"


def test_a_constant_map_withstands_and_the_exit_code_says_so(
    run: Callable, networks: str, photos: Path
) -> None:
    code, out, err = run(
        "robustness", photos, "--model", f"{networks}:linear", *FAST, "--json", "--tau", 0.99
    )
    assert code == 0, err
    report = json.loads(out)
    assert report == json.loads(Path("trompe-out/robustness/robustness.json").read_text())
    entry = report["radii"][0]
    assert entry["status"]["nothing found"] == report["images"] == 3
    assert entry["robust_explanation_accuracy"]["share"] == 1
    assert entry["measures"]["topk"]["chance"] == 6 / 64
    assert set(entry["measures"]["pcc"]["floor_mean"]) == {"noise", "8 bits", "JPEG 75"}
    assert Path("trompe-out/robustness/robustness.png").stat().st_size > 1000


def test_a_broken_map_and_an_unreadable_image(run: Callable, networks: str, photos: Path) -> None:
    (photos / "torn.png").write_bytes(b"no image")
    options = ["--size", 8, "--budget", 0.05, "--radius", "1/255", "--radius", "0.4"]
    code, out, _ = run("robustness", photos, "--model", f"{networks}:curved", *options)
    report = json.loads(Path("trompe-out/robustness/robustness.json").read_text())
    assert report["images"] == 4
    assert list(report["failed"]) == ["torn.png"]
    status = report["radii"][1]["status"]
    assert status["success"] > 0
    assert status["failed"] == 1
    assert code == 3
    assert f"{status['success']} of 4 explanations broken" in out
    assert "within 1/255 (linf)" in out
    assert "Failed: torn.png" in out


def test_a_map_that_is_the_same_everywhere_is_refused(
    refused: Callable, networks: str, photos: Path
) -> None:
    line = refused("robustness", photos / "cat.png", "--model", f"{networks}:mean", *FAST)
    assert "cat.png' is the same everywhere" in line


def test_only_some_are_drawn_and_bad_input_is_refused(
    run: Callable, refused: Callable, networks: str, photos: Path
) -> None:
    _, out, _ = run(
        "robustness", photos, "--model", f"{networks}:linear", *FAST, "--json", "--count", 2
    )
    assert json.loads(out)["images"] == 2
    for path in Path("trompe-out/robustness").iterdir():
        path.unlink()
    Path("trompe-out/robustness").rmdir()
    Path("trompe-out").rmdir()
    linear = ("--model", f"{networks}:linear", "--size", 8)
    assert "is no number" in refused("robustness", photos, *linear, "--radius", "eight")
    assert "8 levels of 255 are 8/255" in refused("robustness", photos, *linear, "--radius", 8)
    assert "twice" in refused("robustness", photos, photos, *linear)
    lines = ["file,class", *(f"gone{index}.png,0" for index in range(32))]
    Path("gone.csv").write_text("\n".join(lines), encoding="utf-8")
    for option in ("--tangents", "gone.csv"), ("gone.csv",):
        assert "'gone0.png' does not exist" in refused("robustness", *option, *linear, "--quiet")
    np.savez("none.npz", jpeg=np.zeros(0, "uint8"), offsets=np.zeros(1, "int64"), label=[])
    assert "'none.npz' holds no image" in refused("robustness", "none.npz", *linear)
    for path in photos.iterdir():
        path.write_bytes(b"torn")
    assert "no image could be attacked" in refused("robustness", photos, *linear)


@pytest.mark.parametrize(
    ("counts", "code"),
    [((0, 3, 0, 0), 0), ((1, 2, 0, 0), 3), ((0, 2, 1, 0), 4), ((0, 2, 0, 1), 4), ((1, 0, 1, 1), 3)],
)
def test_the_exit_code_follows_from_the_words(counts: tuple[int, ...], code: int) -> None:
    words = ("success", "nothing found", "unknown", "failed")
    status = dict(zip(words, counts, strict=True))
    assert verdict({"images": 3, "radii": [{"status": status}]}) == code


KILLED = """
import os, signal, sys
from trompe.cli import main
from trompe.robustness import kept_batches

save = kept_batches.KeptBatches.save

def killed(self, number, done):
    save(self, number, done)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)

kept_batches.KeptBatches.save = killed
main(sys.argv[1:])
"""


def test_a_killed_search_goes_on_to_the_same_results(
    run: Callable, refused: Callable, networks: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "torn.png").write_bytes(b"no image")
    given = ["robustness", photos, "--model", f"{networks}:curved", "--size", 8, "--quiet"]
    given += ["--radius", "1/255", "--radius", "0.1", "--batch-size", 1, "--budget", 0.02]
    given += ["--smoothgrad", 2]
    broken = [*given, "--output", "broken"]
    script = [sys.executable, "-c", KILLED, *map(str, broken)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    killed = subprocess.run(script, check=False, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = [f"batch-{number:06d}.safetensors" for number in range(2)]
    assert sorted(path.name for path in Path("broken/unfinished").iterdir()) == names
    line = refused(*broken, "--budget", 0.03, "--seed", 1)
    assert "budget was 0.02, is 0.03" in line
    assert "seed was 0, is 1" in line
    broken_by = refused(*broken, "--model", f"{networks}:linear")
    assert f"model was {networks}:curved, is {networks}:linear" in broken_by
    assert "other weights" in broken_by
    searched = many_images.auto_attack
    asked: list[int] = []

    def counted(loaded: object, x: torch.Tensor, **more: object) -> object:
        asked.append(len(x))
        return searched(loaded, x, **more)

    monkeypatch.setattr(many_images, "auto_attack", counted)
    code, _, _ = run(*broken)
    assert asked == [1, 1]  # the last image, within either radius
    assert sorted(path.name for path in Path("broken").iterdir()) == [
        "robustness.json", "robustness.png",
    ]  # fmt: skip
    assert run(*given, "--output", "whole").code == code
    one, other = (json.loads(Path(n, "robustness.json").read_text()) for n in ("broken", "whole"))
    assert one == other


def test_kept_batches_that_are_damaged_or_of_another_model_are_refused(
    run: Callable, refused: Callable, networks: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["robustness", photos, "--model", f"{networks}:curved", *FAST, "--batch-size", 1]
    clear = kept_batches.KeptBatches.clear
    monkeypatch.setattr(kept_batches.KeptBatches, "clear", lambda self: None)
    assert run(*given).code in (0, 3)
    unfinished = Path("trompe-out/robustness/unfinished")
    kept = unfinished / "batch-000001.safetensors"
    content = bytearray(whole := kept.read_bytes())
    content[-9] ^= 64
    kept.write_bytes(content)
    assert "is damaged" in refused(*given)
    kept.write_bytes(whole[:-100])
    assert "cannot be read" in refused(*given)
    kept.write_bytes(whole)
    code = Path(f"{networks}.py")
    code.write_text(code.read_text().replace("/ 3)", "/ 5)"))
    sys.modules.pop(networks)
    assert "the code of the model" in refused(*given)
    monkeypatch.setattr(kept_batches.KeptBatches, "clear", clear)
    (unfinished / "mine.txt").write_text("stays")
    kept_batches.KeptBatches(unfinished, {}).clear()
    assert [path.name for path in unfinished.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("late", "no longer depends differentiably"), ("raising", "ValueError: no more")],
)
def test_an_attack_that_fails_fails_its_images_and_is_tried_again(
    run: Callable, networks: str, photos: Path, kind: str, words: str
) -> None:
    given = ["robustness", photos, "--model", f"{networks}:{kind}", *FAST, "--batch-size", 1]
    code, _, err = run(*given)
    assert code in (3, 4), err  # the first image was attacked
    report = json.loads(Path("trompe-out/robustness/robustness.json").read_text())
    assert report["radii"][0]["status"]["failed"] == len(report["failed"]) >= 1
    assert all(words in text for text in report["failed"].values())
    if code == 4:
        assert words in err
    kept = sorted(Path("trompe-out/robustness/unfinished").iterdir())
    assert len(kept) == 3 - len(report["failed"])
    assert run(*given).code in (0, 3, 4)


def test_one_fault_has_the_same_words_in_every_command(
    run: Callable, refused: Callable, networks: str, photos: Path
) -> None:
    early, size = ("--model", f"{networks}:early"), ("--size", 8)
    attacked = ("attack", photos / "cat.png", *early, *size, "--iterations", 30, "--quiet")
    assert "no longer depends differentiably" in refused(*attacked)
    assert "no longer depends differentiably" in refused("robustness", photos, *early, *FAST)
    audited = ("--images", photos, "--pairs", 1, "--iterations", 30, "--worst-case", 0.01)
    code, _, err = run("audit", *audited, *early, *size, "--quiet", "--output", "run")
    assert code == 3
    assert "ModelError: the model's output no longer depends differentiably" in err
    code, out, _ = run("audit", "--status", "--output", "run")
    assert code == 0
    assert "ModelError: the model's output no longer depends differentiably" in out
