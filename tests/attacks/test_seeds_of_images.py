"""Images of any seed are attacked: none is taken for one whose map nothing can move."""

from __future__ import annotations

import nets
import pytest
import torch

import trompe


@pytest.mark.parametrize("seed", [0, 1])
def test_an_image_of_noise_is_attacked(seed: int) -> None:
    torch.manual_seed(seed)
    x, goal = torch.randn(1, 3, 8, 8), torch.rand(1, 8, 8)
    result = trompe.manipulate(nets.plain().float(), x, goal, explainer="gradient", iterations=2)
    assert (result.stopped, result.iterations) == ("finished", 2)
