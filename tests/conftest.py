"""What all tests share. The small networks are in ``nets``, which tests import by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

MODEL = """
import torch
def net():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 3))
"""


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    """What a test forgets to seed is at least the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that name no model take the small one: the usual one takes seconds per step."""
    monkeypatch.setenv("TROMPE_MODEL", "tiny-vgg")


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """A command sets up the package's log; the next test finds it as it was."""
    log = logging.getLogger("trompe")
    before = log.handlers, log.level
    yield
    log.handlers, level = before
    log.setLevel(level)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that choose a small model; the current folder is empty but for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_model.py").write_text(MODEL)
    return ["--model", "small_model:net", "--size", "8"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that takes minutes may take an hour before it counts as hung."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
