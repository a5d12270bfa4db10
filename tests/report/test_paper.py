"""Every figure that can be redrawn, from an experiment of seconds."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from scipy.stats import binom

from trompe.audit import ModelSpec
from trompe.audit.results import Row
from trompe.errors import UsageError
from trompe.report.paper import FIGURES, SCALES, Context, NoStandIn, reproduce, scaled
from trompe.report.paper.claims import claim, median_interval
from trompe.report.paper.context import OTHERS
from trompe.report.paper.smoothed_attacks import _paired
from trompe.report.run_figures import MAPS

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
        others = dict.fromkeys(OTHERS, model)
        yield Context(
            dataclasses.replace(scale, others=others, cifar_images=scale.settings.images),
            folder / "out",
        )


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_is_drawn_and_compared(number: int, context: Context) -> None:
    content = reproduce(number, context)
    assert content["claims"]
    assert sum(content["agreement"].values()) == len(content["claims"])
    for one in content["claims"]:  # of two pairs nothing is claimed but a count
        assert one["agreement"] == "open" or one["n"] >= 6 or "kept" in one["what"]
    for name in content["files"]:
        assert (context.folder / name).stat().st_size > 1000
    kept = json.loads((context.folder / f"figure_{number}.json").read_text())
    assert kept == content


def test_recovery_counts_the_original_map_by_itself(context: Context) -> None:
    """Smoothing that destroys both maps alike recovers nothing, though their difference shrinks."""
    claims = [one for one in reproduce(4, context)["claims"] if "PCC with the orig" in one["what"]]
    assert len(claims) == 2
    for method, one in zip(("gradient", "lrp"), claims, strict=True):
        rises = [
            row.values["beta_0.5_original_pcc"] - row.values["beta_50_original_pcc"]
            for row in context.plain.done
            if row.method == method
        ]
        assert one["what"].startswith(method)
        assert one["ours"] == f"{statistics.median(rises):.2f}"


def test_scales() -> None:
    assert set(SCALES) == {"smoke", "small", "paper"}
    assert scaled("small", images="photos", pairs=3).settings.pairs == 3
    with pytest.raises(UsageError, match="--images"):
        scaled("paper")
    with pytest.raises(UsageError, match="unknown scale"):
        scaled("huge")
    with pytest.raises(UsageError, match="figure 25 cannot"):
        reproduce(25, Context(scaled("smoke"), Path("nowhere")))


@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e-12])
def test_a_change_is_judged_alike_in_all_units(unit: float) -> None:
    """An interval on both sides of 0 is open, one above it agrees, however small they are."""

    def row(change: float, number: int) -> Row:
        values = {"map_target_mse": change * unit}
        return cast(Row, SimpleNamespace(method="gradient", pair=number, values=values))

    def judged(changes: Sequence[float]) -> str:
        before = [row(0.0, i) for i in range(len(changes))]
        after = [row(change, i) for i, change in enumerate(changes)]
        return _paired(before, after, MAPS[0], "", harder_is_less=False)[0].agreement

    assert judged([-3, -2, -1, 0.05, 0.1, 0.2]) == "open"
    assert judged([0.05, 0.1, 0.2, 1, 2, 3]) == "agrees"
    assert judged([-3, -2, -1, -0.2, -0.1, -0.05]) == "differs"


def test_the_caption_names_the_networks_that_were_used() -> None:
    """``SqueezeNet 1.1`` is not said of another network; whatever its weights are called."""
    known = scaled("small", images="x", models=(ModelSpec("squeezenet1_1", "my.safetensors"),))
    other = scaled("small", images="x", models=(ModelSpec("tiny-vgg"),))
    assert Context(known, Path("nowhere")).caption.endswith("(SqueezeNet 1.1 on photos)")
    assert Context(other, Path("nowhere")).caption == "tiny-vgg, 20 pairs, preset fast (on photos)"


def test_boxes_of_other_networks_carry_the_stand_ins_name(context: Context) -> None:
    claims = [one["what"] for one in reproduce(15, context)["claims"]]
    assert claims
    assert not any(name in what for what in claims for name in OTHERS)
    assert all(what.startswith("papernet") for what in claims)


def test_a_network_of_the_paper_without_a_stand_in_is_named() -> None:
    with pytest.raises(NoStandIn, match="nothing stands for AlexNet"):
        reproduce(13, Context(scaled("smoke"), Path("nowhere")))
    with pytest.raises(NoStandIn, match="--cifar-model"):
        reproduce(16, Context(scaled("smoke"), Path("nowhere")))
    with pytest.raises(UsageError, match="together"):
        scaled("smoke", cifar_images="some.npz")


@pytest.mark.parametrize("n", [1, 5, 6, 7, 20, 21])
def test_the_interval_holds_the_median_as_often_as_it_says(n: int) -> None:
    low, high = median_interval(range(n))
    if n < 6:
        assert (low, high) == (-math.inf, math.inf)
        return
    # The true median lies between the k-th and the (n + 1 - k)-th value unless fewer than k values
    # fall on one side of it, each with probability 1/2.
    k = int(low) + 1
    assert high == n - k
    assert 1 - 2 * binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * binom.cdf(k, n, 0.5)


def test_agreement_is_judged_beyond_the_noise() -> None:
    values = [0.7, 0.72, 0.74, 0.76, 0.78, 0.8, 0.82]
    assert claim("a", "b", values, low=0.6).agreement == "agrees"
    assert claim("a", "b", values, low=0.75).agreement == "open"
    assert claim("a", "b", values, low=0.9).agreement == "differs"
    assert claim("a", "b", values, high=0.6).agreement == "differs"
    assert claim("a", "b", values[:5], low=0.6).agreement == "open"
    assert claim("a", "b", [math.nan], low=0.6).agreement == "failed"
    assert claim("a", "b", [*values, math.nan], low=0.6).n == 7
