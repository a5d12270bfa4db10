from __future__ import annotations

import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from trompe.audit import Run
from trompe.audit.results import Row
from trompe.audit.settings import Settings
from trompe.audit.status import Status
from trompe.audit.store import Store
from trompe.errors import UsageError
from trompe.geometry.smoothed_method import Smoothing
from trompe.report.advice import advice
from trompe.report.figures import box_statistics, draw_boxes, joint_figure, panel_figure
from trompe.report.gallery import in_two_places
from trompe.report.html import page, write_report
from trompe.report.run_figures import figure_sets
from trompe.report.svg import inline_svg
from trompe.report.tables import Table, as_csv, as_latex
from trompe.report.words import fooled, summary
from trompe.zoo import ModelSpec

EVIL = '<script>alert("1")</script>$x_1$ & "quoted"'


class MadeUp(Run):
    """A run without any attack: invented cells over real arrays."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder, create=True)
        self.folder = folder
        self.settings = Settings(models=(ModelSpec("tiny-vgg", "random"),), recovery=(1.0, 10.0))
        found = {"mean": [0.5] * 3, "std": [0.5] * 3, "labels": [EVIL] * 50}
        found |= {"weights_of": {}, "code_of": {}}
        self.record = {"source": {"count": 2}, "images": EVIL, "models": [{"found": found}]}
        self.status = Status(10, 8, 1, 0, True, 12, {"tiny-vgg": 3}, 1, {}, 1.0)
        self.versions = {"trompe": "0"}
        self.rows = [self._row(i, s) for i in range(4) for s in ("none", "beta=0.8")]
        self.rows.append(self._row(9, "none", message=EVIL))

    def _row(self, number: int, smoothing: str, message: str | None = None) -> Row:
        draw = torch.Generator().manual_seed(number)
        heat = [torch.rand(1, 8, 8, generator=draw) for _ in range(3)]
        image = torch.rand(1, 3, 8, 8, generator=draw)
        steps = torch.arange(5)
        arrays = {
            "x_adv": image,
            **{f"map_{k}": m for k, m in zip(("original", "target", "adv"), heat, strict=True)},
            "logits_original": torch.rand(1, 50),
            "logits_adv": torch.rand(1, 50),
            **{f"history_{k}": 1.0 + steps for k in ("map_pcc", "map_mse", "image_mse")},
            "history_iteration": steps,
        }
        good = 0.9 if smoothing == "none" else 0.1 + number / 100
        values = {
            "class_kept": 1.0,
            "map_target_pcc": good,
            "map_original_pcc": 1 - good,
            "map_target_ssim": good,
            "map_target_mse": 1e-8,
            "map_start_pcc": 0.1,
            "image_mse": 1e-5,
            "image_linf": 0.01,
            "softmax_l2": 1e-3,
            **{f"beta_{b}_{k}_pcc": 0.5 for b in (1, 10) for k in ("original", "target")},
        }
        put = self.store.arrays.put
        return Row(
            id=number,
            model="tiny-vgg=random",
            method="gradient",
            smoothing=Smoothing.parse(smoothing),
            preset="paper",
            image=f"{number}{EVIL}",
            target=EVIL,
            message=message,
            values={} if message else values,
            flags=() if message else ("noise does it too",),
            x=put({"x": image}),
            target_x=put({"x": image}),
            arrays=put(arrays),
        )


@pytest.fixture
def run(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "run")


class Checker(HTMLParser):
    """Finds what a page must not have: resources from elsewhere, identifiers used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        if "id" in given:
            self.ids.append(given["id"] or "")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            if given.get(name):
                self.links.append(given[name] or "")
        if tag in ("img", "input") and not (given.get("alt") or given.get("aria-label")):
            self.unnamed.append(tag)


def test_the_page_needs_nothing_else_and_escapes_everything(run: MadeUp) -> None:
    text = page(run, {"tiny-vgg=random": figure_sets(run, "tiny-vgg=random")}, most=3)
    checker = Checker()
    checker.feed(text)
    assert checker.scripts == 1
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert all(link.startswith(("#", "data:")) for link in checker.links)
    assert not re.search(r"url\((?!#)", text)
    assert len(set(checker.ids)) == len(checker.ids)
    anchors = {link[1:] for link in checker.links if link.startswith("#")}
    assert anchors <= set(checker.ids)
    assert not checker.unnamed
    assert text.count('class="exhibit"') == 3
    assert 'lang="en"' in text
    assert 'name="viewport"' in text


def test_what_readers_see_is_short(run: MadeUp) -> None:
    text = page(run, {}, most=1)
    assert (
        text.split("<section")[1].split("</section>")[0].count("<figure") == 5
    )  # with the explanation aimed at
    assert "no change" in text  # nothing is amplified 1000 times
    settings = html.unescape(text.split("<pre")[1].split("</pre>")[0])
    assert (
        f"50 entries, from {EVIL}"
        in json.loads(settings[settings.index("{") : settings.rindex("}") + 1])["settings"][
            "models"
        ][0]["found"]["labels"]
    )
    assert '"mean": [0.5, 0.5, 0.5]' in settings
    assert in_two_places(-0.004) == "0.00"
    assert in_two_places(-0.006) == "-0.01"


def test_the_report_has_figures_tables_and_leaderboard(run: MadeUp, tmp_path: Path) -> None:
    path = write_report(run, tmp_path / "out", most=1)
    assert path.stat().st_size > 10_000
    drawn = {p.name for p in (tmp_path / "out/figures").iterdir()}
    for name in ("maps", "images", "outputs", "scatter-beta-0.8", "recovery", "history"):
        for kind in ("pdf", "png"):
            assert f"tiny-vgg_random-{name}.{kind}" in drawn
    with (tmp_path / "out/tables/cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert rows[-1]["failed because"] == EVIL
    entries = [json.loads(p.read_text()) for p in (tmp_path / "out/leaderboard").glob("*.json")]
    assert {entry["defence"] for entry in entries} == {"none", "beta=0.8"}
    assert not (run.folder / "leaderboard").exists(), "nothing is written into the run"
    shares = {entry["defence"]: entry["robust_explanation_accuracy"] for entry in entries}
    assert shares == {"none": 0.0, "beta=0.8": 1.0}


def test_a_run_without_a_finished_cell_has_no_report(run: MadeUp, tmp_path: Path) -> None:
    run.rows = []
    with pytest.raises(UsageError, match="no finished cell"):
        write_report(run, tmp_path / "out")


def test_a_damaged_array_is_named_in_the_page(run: MadeUp) -> None:
    path = run.store.arrays.path(run.rows[0].arrays or "")
    path.write_bytes(b"damaged")
    assert path.name in page(run, {}, most=9)


def test_words(run: MadeUp) -> None:
    sentences = summary(run.done)["tiny-vgg=random"]
    assert "gradient: easily manipulated. In 4 of 4 cases" in sentences[0]
    assert "with beta=0.8: helps" in sentences[1]
    assert any("single unsmoothed" in text for text in advice(run.done))
    assert not fooled(run.done[1])
    assert advice([]) == []


def test_boxes_are_the_papers() -> None:
    found = box_statistics(range(101))
    assert found == {"whislo": 10, "q1": 25, "med": 50, "q3": 75, "whishi": 90}


def test_fewer_than_five_values_are_points_and_no_box() -> None:
    for count, boxes in ((4, 0), (5, 1)):
        axes = Figure().subplots()
        draw_boxes(axes, {"a": {"b": [float(value) for value in range(count)]}})
        assert len(axes.patches) == boxes
        drawn = [line for line in axes.lines if line.get_marker() == "o"]
        assert [len(line.get_ydata()) for line in drawn] == ([count] if not boxes else [])


def test_drawings_follow_the_pages_colours_and_do_not_share_names(run: MadeUp) -> None:
    panels = figure_sets(run, "tiny-vgg=random")[0].panels
    first, second = (inline_svg(panel_figure(panels[0]), name) for name in ("a", "b"))
    assert "currentColor" in first
    assert "#000000" not in first
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    assert joint_figure(panels).axes[0].get_title() == panels[0].title


def test_tables_in_files() -> None:
    table = Table("t", "T", ("a_b", "n"), (("50 % & \\", 0.12345), ('say "x", y', None)))
    assert as_csv(table) == 'a_b,n\n50 % & \\,0.12345\n"say ""x"", y",\n'
    latex = as_latex(table)
    assert r"a\_b & n \\" in latex
    assert r"50 \% \& \textbackslash{} & 0.123 \\" in latex
    assert r"\begin{tabular}{lr}" in latex
