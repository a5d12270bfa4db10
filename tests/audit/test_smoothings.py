"""A method of a name, a smoothing and options: the objects that the words stand for."""

from __future__ import annotations

import math

import nets
import pytest
import torch

from trompe.errors import UsageError
from trompe.explain.beta_smoothing import BetaSmoothing
from trompe.explain.smoothgrad import SmoothGrad
from trompe.geometry.smoothed_method import Smoothing, check_plain, make_method, words_for
from trompe.types import LoadedModel


def test_smoothgrad_of_the_strength_of_a_beta() -> None:
    net = nets.plain()
    with torch.no_grad():  # rows of one norm, so that which units are drawn does not matter
        weight = net[0].weight
        weight *= 2.0 / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        weight[:, :, 0, :] = weight[:, :, 2, :] = weight[:, :, :, 0] = weight[:, :, :, 2] = 0
        weight *= 2.0 / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    loaded = LoadedModel(net, size=8)
    words = "smoothgrad=4-beta=0.5"
    found = make_method("gradient", loaded, smoothing=Smoothing.parse(words), seed=3)
    assert isinstance(found, SmoothGrad)
    assert (found.samples, found.seed) == (4, 3)
    expected = math.log(2) * math.sqrt(2 * math.pi) / (0.5 * 2.0)
    assert found.sigma == pytest.approx(expected, rel=1e-5)
    plain = make_method("gradient", loaded, smoothing=Smoothing(samples=4), seed=3)
    assert isinstance(plain, SmoothGrad)
    assert plain.sigma is None


@pytest.mark.parametrize(
    "words",
    ["smoothgrad=4-beta=", "smoothgrad=4-beta=0", "smoothgrad=4-beta=x", "smoothgrad=4-beta=nan",
     "beta=0.8-beta=0.8", "none-beta=1", "smoothgrad=-beta=-1", "smoothgrad=4-0.8", "beta=",
     "smoothgrad=", "beta=nan", "beta=inf", "beta=1e300", "smoothgrad=1e300", "smoothgrad=2.5",
     "beta=-1", "beta=0", "none=1", "", "beta", "smoothgrad"],
)  # fmt: skip
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="unknown smoothing"):
        Smoothing.parse(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("none", None),
        ("beta=0.8", Smoothing(beta=0.8)),
        ("beta=0.80", Smoothing(beta=0.8)),
        ("smoothgrad=10", Smoothing(samples=10)),
        ("smoothgrad=10-beta=2", Smoothing(samples=10, strength=2.0)),
    ],
)
def test_words_and_smoothings_are_the_same(words: str, expected: Smoothing | None) -> None:
    found = Smoothing.parse(words)
    assert found == expected
    assert Smoothing.parse(words_for(found)) == expected


def test_a_smoothed_method_is_built_from_the_inside_out() -> None:
    loaded = LoadedModel(nets.plain(), size=8)
    found = make_method("lrp", loaded, smoothing=Smoothing(beta=2.0, samples=3), seed=5, chunk=2)
    assert isinstance(found, SmoothGrad)
    assert (found.samples, found.seed, found.chunk) == (3, 5, 2)
    assert isinstance(found.base, BetaSmoothing)
    assert found.base.beta == 2.0
    assert found.base.base.name == "lrp"
    assert make_method("gradient", loaded).name == "gradient"


def test_a_smoothing_is_no_method_to_be_smoothed() -> None:
    with pytest.raises(UsageError, match="is a smoothing"):
        check_plain("smoothgrad")
    with pytest.raises(UsageError, match="unknown"):
        check_plain("astrology")
    for wrong in ({}, {"strength": 1.0}, {"samples": 0}, {"beta": 0.0}):
        with pytest.raises(UsageError):
            Smoothing(**wrong)
