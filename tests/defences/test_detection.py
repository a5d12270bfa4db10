"""Detectors against what they are made of, and on images that were manipulated for real."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

import trompe
from trompe.attacks.channels import Jpeg, Noise, Rounding
from trompe.defences import DETECTORS, Detection, auroc, detect
from trompe.defences.detection import Disagreement, Smoothing, Through
from trompe.errors import UsageError
from trompe.metrics import pcc

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NET = nets.plain()
X = SPACE.clamp(0.6 * nets.images(3, dtype=torch.float32))


def test_the_area_is_the_statistic_of_mann_and_whitney() -> None:
    draw = torch.Generator().manual_seed(0)
    above, below = torch.randn(40, generator=draw) + 0.5, torch.randn(30, generator=draw)
    above[3] = below[5]  # a tie
    expected = mannwhitneyu(above.numpy(), below.numpy()).statistic / (40 * 30)
    assert auroc(above, below) == pytest.approx(expected)
    assert auroc(below, above) == pytest.approx(1 - expected)
    assert auroc(torch.tensor([1.0, torch.nan]), torch.tensor([0.0])) == 1
    assert np.isnan(auroc(torch.tensor([torch.nan]), below))


def test_scores_are_one_less_the_correlation() -> None:
    method = trompe.explainer("gradient")
    target = NET(X).argmax(dim=1)
    found = detect(
        NET,
        X,
        input_space=SPACE,
        batch_size=2,
        detectors={
            "jpeg": Through(Jpeg(75)),
            "beta": Smoothing(2.0),
            "lrp": Disagreement("lrp"),
        },
    )
    assert torch.equal(found.target, target)
    plain = trompe.heatmap(method(NET, X, target))
    others = {
        "jpeg": trompe.heatmap(method(NET, Jpeg(75).real(X, SPACE), target)),
        "beta": trompe.heatmap(method(trompe.smooth(NET, beta=2.0, pooling=True), X, target)),
        "lrp": trompe.heatmap(trompe.explainer("lrp", input_space=SPACE)(NET, X, target)),
    }
    for name, other in others.items():
        torch.testing.assert_close(found.scores[name], 1 - pcc(plain, other).detach())


def test_a_map_that_does_not_depend_on_the_image_is_never_suspect() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    channels = {"r": Through(Rounding()), "n": Through(Noise(0.1)), "j": Through(Jpeg(30))}
    found = detect(net, X, input_space=SPACE, detectors=channels)
    for scores in found.scores.values():
        torch.testing.assert_close(scores, torch.zeros(3), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_manipulation_is_told_from_noise_of_its_size() -> None:
    from trompe.zoo.images import default_images

    loaded = trompe.load_model("tiny-vgg")
    x = loaded.input_space.from_pixels(torch.stack(list(default_images(loaded.size).values())))
    target = trompe.heatmap(
        trompe.explainer("gradient")(loaded.model, x, loaded.model(x).argmax(1)).roll(1, dims=0)
    ).detach()
    result = trompe.manipulate(loaded.model, x, target, input_space=loaded.input_space)
    size = (result.x_adv - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    honest = x + size * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    suspect, innocent = (
        detect(loaded.model, one, input_space=loaded.input_space) for one in (result.x_adv, honest)
    )
    assert suspect.auroc(innocent)["jpeg 75"] > 0.8


def test_wrong_arguments_are_one_line() -> None:
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        detect(NET, X, batch_size=0)
    with pytest.raises(UsageError, match="unknown explanation method"):
        detect(NET, X, "gradeint")
    one = Detection({"a": torch.zeros(1)}, torch.zeros(1))
    with pytest.raises(UsageError, match="the detectors differ: a, b"):
        one.auroc(Detection({"b": torch.zeros(1)}, torch.zeros(1)))
    assert set(DETECTORS) >= {"jpeg 75", "rounding", "beta 0.8"}
