"""Every figure that can be redrawn, from an experiment of seconds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trompe.audit import ModelSpec
from trompe.errors import UsageError
from trompe.report.paper import FIGURES, SCALES, Context, reproduce, scaled

NETWORK = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, 5)).eval()
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """One for all figures: the audits are shared, as by ``trompe reproduce all``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("paper")
    (folder / "papernet.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = ModelSpec("papernet:net", size=16)
        scale = scaled(
            "smoke",
            models=(model,),
            methods=("gradient", "lrp"),
            iterations=4,
            recovery=(0.5, 50.0),
        )
        yield Context(dataclasses.replace(scale, second=model), folder / "out")


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_is_drawn_and_compared(number: int, context: Context) -> None:
    content = reproduce(number, context)
    assert content["claims"]
    assert 0 <= content["hold"] <= len(content["claims"])
    for name in content["files"]:
        assert (context.folder / name).stat().st_size > 1000
    kept = json.loads((context.folder / f"figure_{number}.json").read_text())
    assert kept == content


def test_scales() -> None:
    assert set(SCALES) == {"smoke", "small", "paper"}
    assert scaled("small", images="photos", pairs=3).settings.pairs == 3
    with pytest.raises(UsageError, match="--images"):
        scaled("paper")
    with pytest.raises(UsageError, match="unknown scale"):
        scaled("huge")
    with pytest.raises(UsageError, match="figure 13 cannot"):
        reproduce(13, Context(scaled("smoke"), Path("nowhere")))
