"""Figures of values that have no logarithm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trompe.report.figures import Curve, draw_curves
from trompe.report.geometry import curvature_figure
from trompe.report.style import new_figure, save_figure


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan"), 0.0], [2.0, 0.0]])
def test_a_network_without_curvature_has_a_figure_too(tmp_path: Path, values: list[float]) -> None:
    figure = curvature_figure([0.8, 1.0], [values, values])
    save_figure(figure, tmp_path / "curvature.png")
    assert (figure.axes[0].get_yscale() == "log") == (values[0] > 0)


def test_a_zero_between_values_is_a_gap_and_no_fall(tmp_path: Path) -> None:
    figure = curvature_figure([0.5, 0.8, 1.0], [[2.0], [0.0], [1.0]])
    save_figure(figure, tmp_path / "curvature.png")
    scaled = figure.axes[0].yaxis.get_transform().transform([2.0, 0.0, 1.0])
    assert np.isfinite(scaled).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [0.0, float("nan"), 2.0])
def test_curves_without_a_number_have_a_figure_too(tmp_path: Path, value: float) -> None:
    figure = new_figure(3, 3)
    axes = figure.subplots()
    curves = {"a": Curve((1.0, 2.0), [[value, value]])}
    draw_curves(axes, curves, across="x", up="y", log_across=True, log_up=True)
    figure.tight_layout()
    save_figure(figure, tmp_path / "curves.png")
    assert (axes.get_xscale() == "log") == (value == value)
    assert (axes.get_yscale() == "log") == (value > 0)
