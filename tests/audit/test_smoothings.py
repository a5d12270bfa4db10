"""The smoothings of an audit, by their words."""

from __future__ import annotations

import math

import nets
import pytest
import torch

from trompe.audit.methods import check_smoothing, make_explainer
from trompe.errors import UsageError
from trompe.explain.smoothgrad import SmoothGrad
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
    check_smoothing(words)
    found = make_explainer("gradient", words, loaded, patterns=None, seed=3)
    assert isinstance(found, SmoothGrad)
    assert (found.samples, found.seed) == (4, 3)
    expected = math.log(2) * math.sqrt(2 * math.pi) / (0.5 * 2.0)
    assert found.sigma == pytest.approx(expected, rel=1e-5)
    plain = make_explainer("gradient", "smoothgrad=4", loaded, patterns=None, seed=3)
    assert isinstance(plain, SmoothGrad)
    assert plain.sigma is None


@pytest.mark.parametrize(
    "words",
    ["smoothgrad=4-beta=", "smoothgrad=4-beta=0", "smoothgrad=4-beta=x", "smoothgrad=4-beta=nan",
     "beta=0.8-beta=0.8", "none-beta=1", "smoothgrad=-beta=-1", "smoothgrad=4-0.8"],
)  # fmt: skip
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="unknown smoothing"):
        check_smoothing(words)
