"""Integrated gradients of values and labels, which have no softmax."""

from __future__ import annotations

import dataclasses
import logging

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.explain.meant import meant
from trompe.outputs import Outputs, declare

X = nets.images(2, dtype=torch.float32)
AIM = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
SOFTMAX = trompe.explainer("integrated_grad")
PLAIN = trompe.explainer("integrated_grad", score="logit")


class Positive(nn.Module):
    """A regression of one number that is never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.plain()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out[:, :1].exp()


@pytest.mark.parametrize("meaning", ["value", "labels"])
def test_an_attack_explains_the_outputs_themselves(meaning: str) -> None:
    net = nets.plain()
    found = trompe.manipulate(
        net, X, AIM, explainer="integrated_grad", outputs=meaning, target=1, iterations=2
    )
    nets.close(found.map_original, trompe.heatmap(PLAIN(net, X, 1)), 1e-4)
    whole = trompe.manipulate(net, X, AIM, explainer="integrated_grad", target=1, iterations=2)
    nets.close(whole.map_original, trompe.heatmap(SOFTMAX(net, X, 1)), 1e-4)


def test_a_map_of_a_declared_or_a_found_value_is_of_the_value() -> None:
    net = nets.plain()
    declare(net, Outputs("value"))
    nets.close(SOFTMAX(net, X, 1), PLAIN(nets.plain(), X, 1), 1e-5)
    nets.close(SOFTMAX(Positive().eval(), X, 0), PLAIN(Positive().eval(), X, 0), 1e-5)


def test_methods_within_others_are_changed_too(caplog: pytest.LogCaptureFixture) -> None:
    outputs = Outputs("labels")
    inside = trompe.explainer("smoothgrad", base=SOFTMAX)
    assert meant(inside, outputs) == dataclasses.replace(inside, base=PLAIN)
    many = trompe.explainer("mean_of", methods=(trompe.explainer("gradient"), SOFTMAX))
    assert meant(many, outputs).methods[1] == PLAIN
    assert meant(inside, Outputs("classes")) is inside
    assert meant(PLAIN, outputs) is PLAIN
    with_tensor = trompe.explainer("integrated_grad", baseline=torch.zeros(3, 1, 1))
    assert meant(trompe.explainer("smoothgrad", base=with_tensor), outputs).base.score == "logit"
    with caplog.at_level(logging.WARNING, "trompe"):
        meant(SOFTMAX, outputs)
    assert not caplog.records  # it was said before
