"""Every option of every command is given what it cannot mean: one line, code 2, nothing written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from every_command import every_command

from trompe.cli.options import Number

NETWORK = """
import torch
def net():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 3))
"""
#: What is no name of anything, no number, and no file of any use.
WORDS = ("", "nan", "inf", "-1", "1" + 30 * "0", "astrology", "a b", "=", ":", "a:b:c")
FILES = ("folder", "missing.bin", "binary.bin", "empty.bin", "binary.csv", "binary.npz",
         "binary.png", "binary.pth", "binary.safetensors", "folder.csv", "folder.npz")  # fmt: skip

#: Options that any word can be meant by are given what cannot be written to, or are left out.
FREE = {
    "--output": ["", "binary.bin/below", "a" * 300],
    "--resume": ["", "folder", "binary.bin", "missing/below"],
    "--author": [""],
    "--intended-use": [""],
    "--relied-on-by": [""],
    "--target-text": ["", " "],
}
#: What makes a command short that takes the rest of its words.
SHORT = {
    "--model": "small_model:net",
    "--size": "8",
    "--iterations": "1",
    "--steps": "1",
    "--pairs": "1",
    "--no-worst-case": None,
    "--budget": "0.01",
    "--frames": "2",
    "--count": "1",
    "--duration": "0.1",
}


def words_of(option: click.Parameter) -> Iterator[list[str]]:
    """The command lines' last words: the option with each wrong value."""
    for word in FREE.get(option.opts[0], WORDS + FILES):
        name = option.opts[0]
        if not isinstance(option, click.Option):
            yield [word]
        elif name.startswith("--") and option.nargs == 1:
            yield [f"{name}={word}"]
        else:
            yield [name, *[word] * max(1, option.nargs)]


def options() -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter]]:
    for path, one in every_command():
        for option in one.params:
            number = isinstance(option.type, (click.IntRange, Number))
            if not number and not getattr(option, "is_flag", False):
                yield path, one, option


OPTIONS = list(options())


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder with files that are of no use, and a small network."""
    (folder / "small_model.py").write_text(NETWORK)
    noise = random.Random(0).randbytes(3000)
    for name in FILES:
        if name.startswith("folder"):
            (folder / name).mkdir()
        elif name.startswith("binary"):
            (folder / name).write_bytes(noise)
    (folder / "empty.bin").touch()
    return folder


def test_many_options_are_tried() -> None:
    assert len(OPTIONS) * len(WORDS + FILES) > 3000


def needed(one: click.Command, option: click.Parameter) -> list[str]:
    """Something for every other parameter that must be given."""
    found = []
    for other in one.params:
        if other.required and other is not option:
            found += [*other.opts, "folder"] if isinstance(other, click.Option) else ["folder"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("path", "one", "option"), OPTIONS, ids=lambda v: getattr(v, "name", None))
def test_what_an_option_cannot_mean(
    run: Callable[..., tuple[int, str, str]],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    one: click.Command,
    option: click.Parameter,
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wrong = []
    known = {name for p in one.params for name in p.opts}
    base: list[str] = []
    for name, value in SHORT.items():
        if name in known and name not in option.opts:
            base += [name] if value is None else [name, value]
    for words in words_of(option):
        before = sorted(place.rglob("*"))
        code, out, err = run(*path, *needed(one, option), *base, *words)
        after = [p for p in sorted(place.rglob("*")) if "__pycache__" not in p.parts]
        lines = err.splitlines()
        told = f"{words}: {code}, {err!r}"
        if code != 2 or len(lines) != 1 or "unexpected" in err or "Traceback" in err or out:
            wrong.append(told)
        elif after != before:
            wrong.append(f"{told}; left behind {set(after) - set(before)}")
    assert not wrong, "\n".join(wrong)
