"""Models that end the program, detach or turn NaN, and options that mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODELS = """
import torch
from torch import nn

class Odd(BaseException):
    pass

class Net(nn.Module):
    def __init__(self, answer, after=0):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.answer, self.after, self.calls = nn.Linear(3, 4), answer, after, 0

    def forward(self, x):
        self.calls += 1
        y = self.linear(x.relu().mean(dim=(2, 3)))
        return self.answer(x, y) if self.calls > self.after else y

def ends(x, y): raise GeneratorExit("enough")
def leaves(x, y): raise Odd("enough")
def black_is_nan(x, y): return torch.where(x.amax(dim=(1, 2, 3))[:, None] < 0, y * float("nan"), y)
def no_map(x, y): return torch.where(x.amax(dim=(1, 2, 3))[:, None] < 0, y.sqrt().exp(), y)

def good(): return Net(lambda x, y: y)
def detaches(): return Net(lambda x, y: y.detach())
def generator_exit(): return Net(ends)
def own_exit(): return Net(leaves)
def later(): return Net(ends, after=3)
def nan_on_black(): return Net(black_is_nan)
def turns(after):
    def answer(x, y, seen=[]):
        seen.append(0)
        return y.detach() if len(seen) > after else y
    return Net(answer)
def detaches_later(): return turns(6)
def returns_halves(): return Net(lambda x, y: y.half())
def returns_sparse(): return Net(lambda x, y: y.to_sparse())
def writes_to_images(): return Net(lambda x, y: (x.mul_(0.5), y)[1])
def is_lazy(): return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.LazyLinear(3))
def is_script(): return torch.jit.script(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(),
                                                      nn.Linear(12, 3)))
def is_quantised(): return torch.ao.quantization.quantize_dynamic(
    nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 3)), {nn.Linear}, dtype=torch.qint8)
def is_traced(): return torch.jit.trace(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(),
    nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(1, 3, 16, 16))
class Later(nn.Module):
    def __init__(self, answer, after):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 4))
        self.answer, self.after, self.calls = answer, after, 0
    def forward(self, x):
        self.calls += 1
        y = self.body(x)
        return self.answer(x, y) if self.calls > self.after else y
def sound(): return Later(None, 10**9)
def shrinks(): return Later(lambda x, y: y[:, :2], 5)
def is_nan_in_bounds(): return Later(lambda x, y: y * float("nan"), 6)
def overwrites(): return Later(lambda x, y: (x.mul_(0.5), y)[1], 0)
def says_nothing(): print()
def bare(): return nn.Sequential(nn.AvgPool2d(16), nn.Flatten())
def cannot_be_made(): raise GeneratorExit("enough")
"""


@pytest.fixture
def odd(folder: Path) -> str:
    """A module of odd models, two images in ``images``, and a broken file."""
    name = f"odd_{folder.name}"
    (folder / f"{name}.py").write_text(MODELS)
    (folder / "images").mkdir()
    levels = (255 * np.random.default_rng(0).random((20, 20, 3))).astype(np.uint8)
    Image.fromarray(levels).save(folder / "images" / "a.png")
    Image.fromarray(0 * levels).save(folder / "images" / "black.png")
    (folder / "broken.pth").write_bytes(b"\x00\x01")
    return name


@pytest.fixture
def classes(folder: Path) -> Path:
    """Labelled images, of the classes x, y and z."""
    draw = np.random.default_rng(0)
    for name in "xyz":
        (folder / "classes" / name).mkdir(parents=True)
        for number in range(4):
            levels = (255 * draw.random((20, 20, 3))).astype(np.uint8)
            Image.fromarray(levels).save(folder / "classes" / name / f"{number}.png")
    return folder / "classes"


@pytest.mark.parametrize("function", ["generator_exit", "own_exit", "cannot_be_made", "later"])
def test_a_model_that_ends_the_program(refused: Callable, odd: str, function: str) -> None:
    model = ("--model", f"{odd}:{function}", "--size", 16)
    line = refused("attack", "images/a.png", *model, "--iterations", 2, "--output", "out")
    assert "enough" in line


def test_a_model_that_ends_the_program_fails_its_cells(
    run: Callable, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trompe.audit import cell

    def ends(*args: object, **options: object) -> None:
        raise GeneratorExit("enough")

    monkeypatch.setattr(cell, "manipulate", ends)
    command = ["audit", "--images", "images", "--model", f"{odd}:good", "--size", 16, "--quiet"]
    code, _, err = run(*command, "--pairs", 1, "--iterations", 1, "--no-worst-case")
    assert code == 3
    assert "1 of 1 cells failed" in err


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("returns_sparse", "returns a sparse tensor"),
        ("is_lazy", "lazy layers without weights"),
        ("detaches_later", "no longer depends differentiably"),
    ],
)
def test_a_model_that_cannot_be_explained(
    refused: Callable, odd: str, function: str, words: str
) -> None:
    model = ("--model", f"{odd}:{function}", "--size", 16)
    assert words in refused("attack", "images/a.png", *model, "--iterations", 2, "--output", "out")


def test_a_scripted_model_is_attacked_without_smoothing(run: Callable, odd: str) -> None:
    command = ["attack", "images/a.png", "--model", f"{odd}:is_script", "--size", 16, "--quiet"]
    assert run(*command, "--no-beta-growth", "--iterations", 1)[::2] == (0, "")


@pytest.mark.parametrize("function", ["returns_halves", "writes_to_images"])
@pytest.mark.parametrize("method", ["gradient", "occlusion", "rise", "lime", "kernel_shap"])
def test_an_unusual_model_is_explained(run: Callable, odd: str, function: str, method: str) -> None:
    command = ["explain", "images/a.png", "--model", f"{odd}:{function}", "--size", 16, "--quiet"]
    assert run(*command, "--method", method)[::2] == (0, "")


def test_a_model_without_weights_has_no_patterns(refused: Callable, odd: str) -> None:
    line = refused(
        "patterns", "--data", "images", "--model", f"{odd}:bare", "--size", 16, "--quiet"
    )
    assert "no layer with weights" in line


def test_a_model_that_detaches_is_checked(refused: Callable, odd: str) -> None:
    line = refused("models", "--check", f"{odd}:detaches", "--size", 16)
    assert "no derivative by the image" in line
    assert "missing.pth" in refused("models", "--check", "tiny-vgg", "--weights", "missing.pth")
    assert "go with --check" in refused("models", "--weights", "missing.pth")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--smoothing", "beta"), "unknown smoothing 'beta'"),
        (("--smoothing", "smoothgrad"), "unknown smoothing 'smoothgrad'"),
        (("--device", "cpu:5"), "no device 'cpu:5'"),
        (("--patterns", "broken.pth", "--method", "pattern_attribution"), "of tensors alone"),
        (("--patterns", "missing.pth", "--method", "pattern_net"), "no such patterns file"),
    ],
)
def test_what_no_cell_could_use_is_refused_at_the_start(
    refused: Callable, odd: str, arguments: tuple[str, ...], words: str
) -> None:
    command = ["audit", "--images", "images", "--model", f"{odd}:good", "--size", 16, "--quiet"]
    assert words in refused(*command, "--pairs", 1, *arguments)


def test_cpu_0_is_the_cpu() -> None:
    from trompe.zoo.load import choose_device

    assert str(choose_device("cpu:0")) == "cpu"


@pytest.mark.parametrize("reference", [False, True])
def test_nan_is_no_other_explanation(refused: Callable, odd: str, reference: bool) -> None:
    names = [f"{odd}:good", f"{odd}:nan_on_black"]
    model, other = names if reference else names[::-1]
    line = refused("compare", "images", "--model", model, "--size", 16, "--reference", other)
    assert f"the output of {'its reference' if reference else 'the model'} holds NaN" in line
    # Images whose output is a number can have a map of NaN.
    line = refused("compare", "images/a.png", "--model", model, "--size", 16, "--reference", other)
    assert f"the gradient map of {'its reference' if reference else 'the model'} holds NaN" in line


def test_what_is_left_open_is_said_to_those_who_see_no_more(run: Callable, odd: str) -> None:
    command = ["robustness", "images", "--model", f"{odd}:good", "--size", 16, "--budget", 0.01]
    code, out, err = run(*command, "--tau", -1, "--quiet", "--output", "out")
    assert (code, out) == (4, "")
    assert "only 1 of 2 images could be judged: the map of image 'black.png' is all" in err


def test_a_reader_that_has_enough_is_no_fault_of_a_model() -> None:
    """As in ``trompe models | head -1``: click ends the program, and no model did."""
    command = [sys.executable, "-m", "trompe", "models"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            command, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize("function", ["detaches", "is_quantised"])
def test_a_model_of_which_no_cell_can_be_done_is_refused_at_the_start(
    refused: Callable, run: Callable, odd: str, function: str
) -> None:
    command = ["audit", "--images", "images", "--size", 16, "--quiet", "--pairs", 1]
    command += ["--iterations", 1, "--no-worst-case", "--output", "run", "--method", "gradient"]
    line = refused(*command, "--model", f"{odd}:{function}")
    assert f"model '{odd}:{function}': " in line
    assert not Path("run").exists()
    assert run(*command, "--model", f"{odd}:sound")[0] == 0


@pytest.mark.parametrize(
    ("function", "command", "words"),
    [
        ("shrinks", "fool", "the same form every time"),
        ("shrinks", "compare", "the same form every time"),
        ("is_nan_in_bounds", "certify", "not finite (NaN or infinity)"),
        ("overwrites", "curvature", "by an operation in place such as x.mul_()"),
        ("overwrites", "choose", "by an operation in place such as x.mul_()"),
        ("overwrites", "harden", "by an operation in place such as x.mul_()"),
        ("overwrites", "fool", "by an operation in place such as x.mul_()"),
    ],
)
def test_a_model_that_changes_later_is_one_line(
    run: Callable, odd: str, classes: Path, function: str, command: str, words: str
) -> None:
    more: dict[str, list[object]] = {
        "compare": ["compare", "images", "--reference", f"{odd}:good"],
        "certify": ["certify", "images/a.png"],
        "curvature": ["curvature", "images/a.png", "-k", 1, "--steps", 3],
        "choose": ["smooth", "choose", "images/a.png", "--steps", 2],
        "harden": ["harden", "--data", classes, "--epochs", 1, "--attacked", 1],
        "fool": ["fool", "--data", classes, "--epochs", 1],
    }
    code, _, err = run(*more[command], "--model", f"{odd}:{function}", "--size", 16, "--quiet")
    (line,) = err.splitlines()
    assert code == 2
    assert words in line


def test_a_traced_model_is_trained(run: Callable, odd: str, classes: Path) -> None:
    command = ["fool", "--data", classes, "--epochs", 1, "--model", f"{odd}:is_traced"]
    assert run(*command, "--size", 16, "--quiet")[::2] == (0, "")


def test_a_function_that_prints_an_empty_line_is_one_line(refused: Callable, odd: str) -> None:
    line = refused("explain", "images/a.png", "--model", f"{odd}:says_nothing", "--size", 16)
    assert "must return an nn.Module" in line


def test_a_folder_in_which_nothing_can_be_made_is_refused_before_the_work(
    refused: Callable, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc")
    monkeypatch.setattr("trompe.zoo.load_model", lambda *a, **k: pytest.fail("work was done"))
    for command in ("sandwich", "explain"):
        line = refused(command, "images/a.png", "--model", f"{odd}:good", "--output", "/proc")
        assert "/proc" in line
