"""The figures that a notebook asks for show the numbers of the result."""

from __future__ import annotations

import pytest
import torch

import trompe
from trompe.errors import UsageError


def test_curves_are_the_history_of_the_image_asked_for() -> None:
    images = ["coffee", "cat"]
    result = trompe.attack(images, target_text="no", model="tiny-vgg", iterations=5, progress=False)
    axes = trompe.plot.curves(result, 1).axes
    names = [name for name in result.history if name != "iteration"]
    assert [one.get_title() for one in axes] == [name.replace("_", " ") for name in names]
    for one, name in zip(axes, names, strict=True):
        drawn = torch.tensor(one.lines[0].get_ydata())
        torch.testing.assert_close(drawn.float(), result.history[name][:, 1].float())
    assert trompe.plot.curves(result)._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    with pytest.raises(UsageError, match="no image 2"):
        trompe.plot.curves(result, 2)


def test_maps_has_a_row_per_name_and_a_column_per_beta() -> None:
    rows = {name: [torch.rand(8, 8), torch.rand(8, 8)] for name in ("a", "b")}
    figure = trompe.plot.maps(torch.rand(3, 8, 8), rows, betas=(1.0,))
    assert len([axes for axes in figure.axes if axes.images]) == 2 * 3
