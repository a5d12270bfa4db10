"""Pipes, devices and checkpoints of odd names are refused at once, whatever option names them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trompe

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
EXPLAIN = ("explain", "--model", "tiny-vgg", "--method")


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((*EXPLAIN, "gradient", "--weights"), "odd.safetensors"),
        ((*EXPLAIN, "gradient", "--weights"), "odd.pth"),
        ((*EXPLAIN, "gradient", "--classes"), "odd.txt"),
        ((*EXPLAIN, "pattern_attribution", "--patterns"), "odd.safetensors"),
        ((*EXPLAIN, "pattern_attribution", "--patterns"), "odd.pth"),
        (("attack", "--model", "tiny-vgg", "--target-map"), "odd.npy"),
        (("attack", "--model", "tiny-vgg", "--target"), "odd.png"),
    ],
)
def test_what_would_be_waited_for(
    refused: Callable[..., str], folder: Path, command: tuple[str, ...], name: str, kind: str
) -> None:
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    line = refused(*command, name)
    assert name in line
    assert "no ordinary file" in line


@pytest.mark.parametrize("key", [0, None, ("a", 1), True])
def test_a_checkpoint_whose_names_are_no_words(
    refused: Callable[..., str], folder: Path, key: object
) -> None:
    torch.save({key: torch.ones(2)}, folder / "odd.pth")
    assert "holds no state dict" in refused(*EXPLAIN, "gradient", "--weights", "odd.pth")


def test_argument_of_too_many_folders(refused: Callable[..., str]) -> None:
    assert "1501 folders in one another" in refused("audit", "--output", "a" + 1501 * "/b")


ODD_TENSORS: dict[str, Callable[[torch.Tensor], object]] = {
    "without values": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "complex": lambda t: torch.complex(t, t),
    "integers": lambda t: t.long(),
    "quantised": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "lists": lambda t: t.tolist(),
    "nothing": lambda t: None,
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_that_are_no_weights_and_no_patterns(
    refused: Callable[..., str], folder: Path, kind: str
) -> None:
    state = trompe.load_model("tiny-vgg", "random").model.state_dict()
    torch.save({key: ODD_TENSORS[kind](value) for key, value in state.items()}, "odd.pth")
    line = refused(*EXPLAIN, "gradient", "--weights", "odd.pth")
    assert "no dense floating point numbers" in line or "holds no state dict" in line
    assert "is no pattern" in refused(*EXPLAIN, "pattern_attribution", "--patterns", "odd.pth")


@pytest.mark.parametrize("device", ["meta", "mps", "xpu", "hip", "fpga", "cuda:99", ""])
def test_a_device_on_which_nothing_can_be_computed(
    refused: Callable[..., str], device: str
) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    assert device in refused(*EXPLAIN, "gradient", f"--device={device}")


def test_weights_without_values(refused: Callable[..., str], folder: Path) -> None:
    name = f"metanet_{folder.name}"
    (folder / f"{name}.py").write_text(
        "from torch import nn\ndef net(): return nn.Linear(3, 4).to('meta')\n"
    )
    assert "device meta" in refused("explain", "--method", "gradient", "--model", f"{name}:net")


@pytest.mark.parametrize("word", ["--output=", "a\0b", ""])
def test_empty_arguments_and_null_characters(refused: Callable[..., str], word: str) -> None:
    line = refused("explain", word)
    assert "empty" in line or "null character" in line


def test_a_name_that_is_too_long_for_the_system(refused: Callable[..., str]) -> None:
    line = refused("explain", "a" * 5000)
    assert "too long" in line
    assert len(line) < 1500
