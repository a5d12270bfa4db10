"""The overview of an attack, and the layout of the paper's program."""

from __future__ import annotations

import ast
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import trompe
from trompe import metrics
from trompe.errors import OutputError
from trompe.report import overview as overview_module
from trompe.report import overview_figure, reference_overview, save_overview
from trompe.report.style import short


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_without_a_target_image_there_are_three_columns(case: Any) -> None:
    figure = overview_figure(case.result, case.input_space, labels=("ant", "bee"))
    assert len(figure.axes) == 6
    assert titles(figure)[0].startswith("Original image\n")
    assert [title.split("\n")[0] for title in titles(figure)[3:]] == [
        "Original explanation",
        "Manipulated explanation",
        "Target explanation",
    ]
    assert all(not axes.get_xticks().size for axes in figure.axes)


def test_the_target_image_has_its_own_column(case: Any) -> None:
    figure = overview_figure(
        case.result, case.input_space, target_pixels=case.target_pixels[1], index=1
    )
    assert len(figure.axes) == 8
    assert titles(figure)[6].startswith("Target image")
    shown = figure.axes[6].images[0].get_array()
    np.testing.assert_allclose(shown, case.target_pixels[1].permute(1, 2, 0), rtol=1e-6)


def test_titles_tell_the_similarity_to_the_target(case: Any) -> None:
    result = case.result
    title = titles(overview_figure(result, case.input_space, index=1))[4]
    similarity = float(metrics.pcc(result.map_adv, result.map_target)[1])
    assert f"PCC {similarity:.2f}, SSIM " in title


def test_a_class_may_be_called_anything(case: Any, tmp_path: Path) -> None:
    labels = [r"$\frac", "a$b$", "<tag>", "^_", "x" * 99]
    save_overview(tmp_path / "a.png", case.result, case.input_space, labels=labels)
    assert len(short(labels)[4]) == 22


def test_titles_name_the_class_and_its_probability(case: Any) -> None:
    labels = [f"species {index}" for index in range(5)]
    title = titles(overview_figure(case.result, case.input_space, labels=labels, index=2))[0]
    probability, index = case.result.logits_original[2].softmax(0).max(0)
    assert title.endswith(f"species {int(index)}, {100 * float(probability):.1f} %")
    without = titles(overview_figure(case.result, case.input_space, index=2))[0]
    assert f"class {int(index)}," in without


def test_the_maps_share_one_scale(case: Any) -> None:
    figure = overview_figure(case.result, case.input_space)
    limits = {axes.images[0].get_clim() for axes in figure.axes[3:]}
    assert len(limits) == 1
    low, high = limits.pop()
    maps = torch.stack([case.result.map_original[0], case.result.map_adv[0]])
    assert low == 0
    assert 0 < high <= float(max(maps.max(), case.result.map_target[0].max())) + 1e-9


def test_the_perturbation_is_amplified_as_its_title_says(case: Any) -> None:
    figure = overview_figure(case.result, case.input_space)
    title = figure.axes[2].get_title()
    factor = int(title.split("amplified ")[1].split()[0])
    assert factor in overview_module._FACTORS
    space = case.input_space
    change = space.to_pixels(case.result.x_adv[:1]) - space.to_pixels(case.result.x[:1])
    expected = (0.5 + factor * change[0]).clamp(0, 1).permute(1, 2, 0)
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), expected, atol=1e-5)


def test_the_caption_tells_a_changed_class_and_the_similarities(case: Any) -> None:
    assert "class kept" in overview_figure(case.result, case.input_space).texts[-1].get_text()
    turned = dataclasses.replace(case.result, logits_adv=-case.result.logits_original)
    caption = overview_figure(turned, case.input_space).texts[-1].get_text()
    assert "CLASS CHANGED" in caption
    assert "dB" in caption


def test_an_unchanged_image_and_a_gray_one_can_be_shown(tmp_path: Path, make_case: Any) -> None:
    case = make_case(channels=1, count=1)
    same = dataclasses.replace(case.result, x_adv=case.result.x, map_adv=case.result.map_original)
    save_overview(tmp_path / "a.png", same, case.input_space)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_many_images_are_stacked_up_to_a_limit(case: Any, tmp_path: Path) -> None:
    heights = []
    for most in (1, 2, 9):
        save_overview(
            tmp_path / "a.png",
            case.result,
            case.input_space,
            target_pixels=case.target_pixels,
            most=most,
        )
        heights.append(Image.open(tmp_path / "a.png").height)
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)
    assert heights[2] == pytest.approx(3 * heights[0], abs=3)
    assert os.listdir(tmp_path) == ["a.png"]


def test_the_same_result_gives_the_same_bytes(case: Any, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_overview(tmp_path / name, case.result, case.input_space, most=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_layout_of_the_papers_program(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    save = overview_module.save_figure
    monkeypatch.setattr(
        overview_module, "save_figure", lambda fig, path: (kept.append(fig), save(fig, path))
    )
    for target_pixels in (case.target_pixels[0], None):
        reference_overview(
            tmp_path / "overview_lrp.png",
            case.result,
            case.input_space,
            target_pixels=target_pixels,
        )
        assert titles(kept[-1]) == [
            "Target Image",
            "Target Explanation",
            "Original Image",
            "Original Explanation",
            "Manipulated Image",
            "Manipulated Explanation",
        ]
        assert kept[-1].axes[3].images[0].get_cmap().name == "coolwarm"
    assert Image.open(tmp_path / "overview_lrp.png").width > 200


def test_a_figure_that_cannot_be_written_is_an_output_error(case: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        save_overview(tmp_path / "nowhere" / "a.png", case.result, case.input_space, most=1)


@pytest.mark.parametrize("part", ["report", "metrics", "zoo"])
def test_no_module_imports_a_plotting_library_when_it_is_imported(part: str) -> None:
    for path in (Path(trompe.__file__).parent / part).glob("*.py"):
        if path.name == "shown_figure.py":  # itself a figure, imported where one is drawn
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # the top level only
            names = [alias.name for alias in getattr(node, "names", ())]
            names.append(getattr(node, "module", None) or "")
            assert not [n for n in names if n.split(".")[0] in ("matplotlib", "skimage")], path
