"""Bad input gets one line on stderr and exit code 2, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.answer = answer

    def forward(self, x):
        return self.answer(self.linear(x.mean(dim=(2, 3))))

def returns_tuple(): return Net(lambda y: (y, y))
def returns_nan(): return Net(lambda y: y * float("nan"))
def returns_one(): return Net(lambda y: y[:1])
def returns_integers(): return Net(lambda y: y.argmax(dim=1, keepdim=True).expand(-1, 4))
def is_constant(): return Net(lambda y: 0 * y + torch.arange(4.0))
def has_odd_operation(): return Net(lambda y: torch.fft.fft(y).abs())
def is_no_module(): return 42
def raises(): raise RuntimeError("two\\nlines")
def fails(): return nn.Linear(7, 7)
"""


@pytest.fixture
def networks(folder: Path) -> str:
    """A module of bad models in the current directory, of a name of its own."""
    name = f"networks_{folder.name}"
    (folder / f"{name}.py").write_text(MODELS)
    return name


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("returns_tuple", "returns a tuple"),
        ("returns_nan", "NaN or infinity"),
        ("returns_one", "returns a tensor ((1, 4)) for 2 images"),
        ("returns_integers", "torch.int64"),
        ("is_constant", "all zero"),
        ("is_no_module", "must return an nn.Module"),
        ("raises", "RuntimeError: two lines"),
        ("fails", "fails on images of shape"),
        ("is_missing", "has no attribute"),
    ],
)
def test_models(refused: Callable, networks: str, function: str, words: str) -> None:
    assert words in refused("attack", "--model", f"{networks}:{function}", "--size", 16)


def test_an_operation_without_a_rule(refused: Callable, networks: str) -> None:
    model = f"{networks}:has_odd_operation"
    line = refused("attack", "--method", "lrp", "--model", model, "--size", 16)
    assert "has no rule under 'lrp'" in line


@pytest.mark.parametrize("command", ["attack", "explain"])
@pytest.mark.parametrize("kind", ["missing", "corrupt", "folder", "animated", "truncated"])
def test_images(refused: Callable, folder: Path, command: str, kind: str) -> None:
    path = folder / "picture.png"
    frames = [Image.new("L", (40, 40), level) for level in (0, 255)]
    if kind == "corrupt":
        path.write_text("no picture")
    elif kind == "folder":
        path.mkdir()
    elif kind == "animated":
        path = folder / "picture.gif"
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif kind == "truncated":
        noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    assert path.name in refused(command, path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--beta", "0"), "beta must be positive"),
        (("--beta", "-1"), "beta must be positive"),
        (("--beta-growth", "0", "100"), "beta"),
        (("--smoothgrad", "0"), "--smoothgrad"),
        (("--iterations", "0"), "--iterations"),
        (("--device", "cuda:99"), "no device 'cuda:99'"),
        (("--device", "abacus"), "unknown device 'abacus'"),
        (("--model", "vgg61"), "did you mean vgg1"),
        (("--model", "nowhere:nothing"), "No module named 'nowhere'"),
        (("--model", "resnet20-cifar10"), "--weights"),
        (("--weights", "missing.safetensors"), "does not exist"),
        (("--classes", "missing.txt"), "cannot be read"),
        (("--std", "0", "1", "1"), "std must be positive"),
        (("--mean", "a", "b", "c"), "--mean"),
        (("--preset", "unheard"), "unknown preset 'unheard'"),
        (("--method", "astrology"), "astrology"),
        (("--method", "pattern_attribution", "--patterns", "missing.pth"), "missing.pth"),
        (("--target", "missing.png"), "missing.png"),
        (("--target-map", "missing.npy"), "missing.npy"),
        (("--target-text", " "), "target text is empty"),
        (("--target-text", "a", "--target-map", "b.npy"), "give one of --target"),
        (("--beta-growth", "10", "100", "--no-beta-growth"), "give one of --beta-growth"),
        (("--no-such-option",), "--no-such-option"),
    ],
)
def test_options(refused: Callable, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused("attack", *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda(refused: Callable) -> None:
    assert "no device 'cuda'" in refused("attack", "--device", "cuda")


def test_a_target_map_that_is_all_zero(refused: Callable, folder: Path) -> None:
    np.save(folder / "zero.npy", np.zeros((64, 64)))
    assert "all zero" in refused("attack", "--target-map", "zero.npy")


def test_an_output_folder_that_cannot_be_made(refused: Callable, folder: Path) -> None:
    (folder / "taken").write_text("a file")
    assert "taken" in refused("attack", "--output", "taken")
    assert "taken" in refused("attack", "--output", "taken/inside/it")
    assert "taken" in refused("explain", "--method", "gradient", "--output", "taken")


def test_an_output_folder_that_may_not_be_written_to_is_refused_before_the_work(
    refused: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the system's answer is made up."""
    (folder / "closed").mkdir()
    access = os.access

    def answer(at: str, mode: int) -> bool:
        return not (Path(at).name == "closed" and mode & os.W_OK) and access(at, mode)

    monkeypatch.setattr(os, "access", answer)
    for option in ("closed", "closed/new/one"):
        assert "may not be written to" in refused("attack", "--output", option)
    assert "may not be written to" in refused("animate", "attack", "--output", "closed/a.gif")


def test_an_error_on_the_way_leaves_no_folder_behind(
    refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trompe.errors import ExplanationError

    def fails(*_: object, **__: object) -> None:
        raise ExplanationError("the map is all zero")

    monkeypatch.setattr("trompe.attacks.manipulate", fails)
    refused("attack", "--output", "a/b/c")


def test_a_bug_is_one_line_too_with_another_code(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("trompe.attacks.manipulate", fails)
    code, _, err = run("attack", "--quiet")
    assert code == 1
    assert err == ("trompe: unexpected ZeroDivisionError: by zero ('trompe --debug' shows where)\n")
    with pytest.raises(ZeroDivisionError):
        run("--debug", "attack", "--quiet")
