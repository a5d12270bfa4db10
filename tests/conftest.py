"""What all tests share. The small networks are in ``nets``, which tests import by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    """What a test forgets to seed is at least the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """A command sets up the package's log; the next test finds it as it was."""
    log = logging.getLogger("trompe")
    before = log.handlers, log.level
    yield
    log.handlers, level = before
    log.setLevel(level)
