"""What cannot be attacked is said, instead of returning the original without a word."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import trompe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_map_that_does_not_depend_on_the_image_is_named(
    batch_size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Deconvnet without pooling is made of weights alone."""
    x = torch.rand(2, 3, 8, 8)
    with caplog.at_level(logging.WARNING, "trompe"):
        result = trompe.manipulate(
            network(), x, torch.rand(8, 8), explainer="deconvnet", iterations=6,
            batch_size=batch_size,
        )  # fmt: skip
    assert result.provenance["unmoved"] == [True, True]
    assert "no attack says anything about it" in caplog.text
    assert not bool(result.success.any())


def test_a_map_that_moves_is_not(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.rand(2, 3, 8, 8)
    with caplog.at_level(logging.WARNING, "trompe"):
        result = trompe.manipulate(network(), x, torch.rand(8, 8), explainer="lrp", iterations=6)
    assert result.provenance["unmoved"] == [False, False]
    assert "says nothing" not in caplog.text


def test_without_a_step_nothing_is_said() -> None:
    x = torch.rand(1, 3, 8, 8)
    result = trompe.manipulate(network(), x, torch.rand(8, 8), explainer="deconvnet", iterations=0)
    assert result.provenance["unmoved"] == [False]


def test_a_map_that_stays_while_the_image_changes_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A gradient of ReLU is constant around an image, and another one at another image."""
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, "trompe"):
        result = trompe.manipulate(
            network().double(), x, torch.rand(8, 8).double(), iterations=6,
            constraint=trompe.attacks.LInfBall(1e-9),
        )  # fmt: skip
    assert result.iterations == 6
    assert result.provenance["unmoved"] == [True, True]
    assert "did not change at all while the image did" in caplog.text
