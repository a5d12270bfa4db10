"""Heat maps side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from trompe.errors import UsageError
from trompe.report import explanations as explanations_module
from trompe.report import explanations_figure, reference_explanations, save_explanations

PIXELS = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
MAPS = list(torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1)))


def test_rows_are_methods_and_columns_the_image_relu_and_betas(tmp_path: Path) -> None:
    grid = {"gradient": MAPS, "integrated_grad": MAPS[::-1]}
    figure = explanations_figure(PIXELS, grid, [10, 0.8], title="cat $1")
    assert len(figure.axes) == 8
    first = [axes.get_title() for axes in figure.axes[:4]]
    assert first == ["image", "ReLU", "softplus, β = 10", "softplus, β = 0.8"]
    assert [figure.axes[i].get_ylabel() for i in (0, 4)] == ["gradient", "integrated grad"]
    assert figure.get_suptitle() == "cat $1"
    assert (figure.axes[5].images[0].get_array() == MAPS[2].numpy()).all()
    save_explanations(tmp_path / "a.png", PIXELS, grid, [10, 0.8])
    assert Image.open(tmp_path / "a.png").width > 200


def test_one_map_is_enough() -> None:
    assert len(explanations_figure(PIXELS, {"lrp": MAPS[:1]}, []).axes) == 2


def test_the_layout_of_the_papers_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(explanations_module, "save_figure", lambda fig, path: kept.append(fig))
    reference_explanations(tmp_path / "expls_gradient.png", PIXELS, MAPS, [10, 3.0])
    assert [axes.get_title() for axes in kept[0].axes] == [
        "Image",
        "Expl. with ReLU",
        "Expl. with softplus \nbeta=10",
        "Expl. with softplus \nbeta=3",
    ]


def test_missing_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lrp has 3 maps for 2 columns"):
        explanations_figure(PIXELS, {"lrp": MAPS}, [10])
    with pytest.raises(UsageError, match="at least one method"):
        explanations_figure(PIXELS, {}, [10])
    with pytest.raises(UsageError, match="3 maps for 2 columns"):
        reference_explanations(tmp_path / "a.png", PIXELS, MAPS, [10])


def test_every_row_may_show_an_image_of_its_own() -> None:
    pair = torch.stack([PIXELS, 1 - PIXELS])
    axes = explanations_figure(pair, {"before": MAPS, "after": MAPS}, [10, 0.8]).axes
    photos = [one.images[0].get_array() for one in axes if one.get_ylabel()]
    assert len(photos) == 2
    assert not np.array_equal(*photos)
