"""Pictures of signals and volumes: their numbers are those of the maps, captions say the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from torch import Tensor, nn

import trompe


def attacked(dims: int, channels: int, **options: Any) -> trompe.AttackResult:
    torch.manual_seed(1)
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[dims]
    net = nn.Sequential(
        *(conv(channels, 6, 3), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(6 * 2**dims, 3))
    ).eval()
    x = torch.rand(2, channels, *{1: (30,), 3: (8, 7, 6)}[dims])
    space = trompe.InputSpace.between(0.0, 1.0, channels)
    return trompe.manipulate(net, x, input_space=space, iterations=3, **options)


def texts(figure: Any) -> str:
    titles = [axes.get_title() for axes in figure.axes]
    return "\n".join([*titles, *(text.get_text() for text in figure.texts)])


def test_a_signal_is_coloured_by_its_heat() -> None:
    result = attacked(1, 2, target_map=torch.rand(30))
    figure = result.plot(1)
    assert len(figure.axes) == 6
    for axes, heat in zip(
        figure.axes[3:], (result.map_original, result.map_adv, result.aim), strict=True
    ):
        drawn = [one for one in axes.collections if isinstance(one, LineCollection)]
        assert len(drawn) == 2
        for channel, lines in enumerate(drawn):
            shares = heat[1, channel].double()
            middle = ((shares[1:] + shares[:-1]) / 2).numpy()
            np.testing.assert_allclose(np.asarray(lines.get_array()), middle, rtol=1e-6)
    assert "Target explanation" in texts(figure)
    assert "of the range" in texts(figure)
    assert "  signal       " in result.summary()
    assert "levels" not in result.summary()
    assert "<img" in result._repr_html_()


def test_channels_left_out_are_said() -> None:
    said = texts(attacked(1, 11, objective="unlike").plot())
    assert "The first 8 of 11 channels" in said


def test_a_volume_shows_its_middle_slices() -> None:
    result = attacked(3, 2, objective="unlike")
    figure = result.plot()
    volume: Tensor = result.map_adv[0].sum(dim=0)
    slices = (volume[4], volume[:, 3], volume[:, :, 3])
    drawn = [axes.images[0].get_array() for axes in figure.axes[4::5]]
    for found, expected in zip(drawn, slices, strict=True):
        np.testing.assert_allclose(np.asarray(found), expected.numpy(), rtol=1e-6)
    assert "D 4 of 0..7, H 3 of 0..6, W 3 of 0..5" in texts(figure)
    assert "volume" in result.summary()


@pytest.mark.parametrize("dims", [1, 3])
def test_maps_side_by_side(dims: int) -> None:
    result = attacked(dims, 2, objective="unlike")
    maps = {name: [result.map_original[0], result.map_adv[0]] for name in ("gradient", "lrp")}
    figure = trompe.plot.maps(result.x[0], maps, betas=[1.0], title="yes")
    above = figure.get_suptitle()
    if dims == 1:
        assert len(figure.axes) == 4
    else:
        middle = result.map_adv[0].sum(dim=0)[4].numpy()
        np.testing.assert_allclose(np.asarray(figure.axes[2].images[0].get_array()), middle)
    assert above == ("yes" if dims == 1 else "yes, slice 4 of 0..7")
