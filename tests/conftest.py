"""What all tests share. The small networks are in ``nets``, which tests import by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    """What a test forgets to seed is at least the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
