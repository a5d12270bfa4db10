"""Small images and a small network, in an empty current directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trompe.audit import ModelSpec, Settings, open_run
from trompe.audit.agreement import agree
from trompe.audit.provenance import facts
from trompe.audit.sources import open_source
from trompe.audit.store import Store

#: A module of the user's, as ``--model smallnet:net`` names it.
NETWORK = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, 5)).eval()
"""


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        levels = (255 * draw.random((8, 8, 3))).astype(np.uint8)
        Image.fromarray(levels).resize((20, 20)).save(folder / f"i{i:04d}.png")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory with a network in ``smallnet.py`` and 12 images in ``images``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "smallnet.py").write_text(NETWORK)
    write_images(tmp_path / "images", 12)
    return tmp_path


@contextmanager
def furnished(place: Path) -> Iterator[Path]:
    """``place`` as the current directory, with the network and 12 images: for a module's run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (place / "smallnet.py").write_text(NETWORK)
        write_images(place / "images", 12)
        yield place


@pytest.fixture
def run(original: Path) -> Iterator[Path]:
    """A copy of the run that a module has made once, as ``original``."""
    copy = original.with_name("run")
    shutil.copytree(original, copy)
    yield copy
    shutil.rmtree(copy)


def small(**changes: object) -> Settings:
    """Settings of an audit that takes a second."""
    values: dict[str, object] = {
        "models": (ModelSpec("smallnet:net", size=16),),
        "images": "images",
        "pairs": 4,
        "iterations": 10,
        "batch_size": 2,
        "recovery": (1.0,),
    }
    return Settings(**(values | changes))  # type: ignore[arg-type]


Numbers = list[tuple[object, ...]]


def numbers(folder: str) -> Numbers:
    """Everything that must not depend on interruptions."""
    run = open_run(folder)
    return [
        (
            row.kind,
            row.pair,
            row.message,
            {k: v for k, v in row.values.items() if k != "seconds"},
            row.flags,
            (row.x, row.target_x, row.arrays),
        )
        for row in run.rows
    ]


def begun(**changes: object) -> None:
    """Begin a run without doing anything of it."""
    settings = small(**changes)
    source = open_source(settings.images)
    images = source.images()
    found = [facts(spec, spec.load()) for spec in settings.models]
    with Store(Path("run"), create=True) as store:
        agree(store, settings.recorded(source, images, found), images)
