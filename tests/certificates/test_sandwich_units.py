"""A sandwich in pixel units is the one in units of x, of the radius divided by the std."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import trompe
from trompe.certificates import sandwich


def enclosed(radius: float, std: tuple[float, ...] | None) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    space = None if std is None else trompe.InputSpace((0.0,) * 3, std)
    (layer,) = sandwich(
        net, x, radii=[radius], betas=[1.0], quantities=["gradient_l2"], restarts=2, steps=5,
        samples=4, input_space=space, generator=torch.Generator().manual_seed(0),
    ).layers  # fmt: skip
    return layer


def test_one_std_divides_the_radius() -> None:
    pixels, plain = enclosed(0.05, (0.25,) * 3), enclosed(0.2, None)
    assert pixels.lower == pytest.approx(plain.lower, rel=1e-9)
    assert pixels.best == pytest.approx(plain.best, rel=1e-6)
    assert pixels.radius == 0.05


def test_several_stds_widen_the_gap_on_both_sides() -> None:
    mixed = enclosed(0.05, (0.5, 0.25, 0.125))
    assert mixed.lower == pytest.approx(enclosed(0.1, None).lower, rel=1e-9)
    assert mixed.best == pytest.approx(enclosed(0.4, None).best, rel=1e-6)
