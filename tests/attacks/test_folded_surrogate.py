"""An attack differentiates a copy with its batch norms folded, and judges by the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nets
import pytest
import torch
from attacking import manipulate
from torch import nn

import trompe
from trompe.attacks import surrogate as making
from trompe.attacks.presets import preset_for
from trompe.attacks.surrogate import surrogate_of
from trompe.explain.gradient import Gradient

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(2))
AIM = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 2


def attack(model: nn.Module, **settings: Any) -> Any:
    return manipulate(model, X, AIM, **{"input_space": SPACE, "iterations": 12, **settings})


@dataclass(frozen=True)
class LooksInside(Gradient):
    """A method of the user's own, which may treat layers."""


def has_norms(method: Any) -> bool:
    surrogate = surrogate_of(preset_for("fast", method), nets.normed().double(), X, method=method)
    assert surrogate is not None
    return any(isinstance(module, nn.BatchNorm2d) for module in surrogate.model.modules())


@pytest.mark.parametrize("name", ["gradient", "grad_times_input", "integrated_grad", "smoothgrad"])
def test_maps_of_the_function_are_attacked_folded(name: str) -> None:
    assert not has_norms(trompe.explainer(name))


@pytest.mark.parametrize(
    "method",
    [
        *(trompe.explainer(name) for name in ("lrp", "guided_backprop", "grad_cam", "deeplift")),
        trompe.explainer("smoothgrad", base=trompe.explainer("lrp")),
        trompe.explainer("beta_smoothing"),
        LooksInside(),
        lambda model, x, target: x,
    ],
)
def test_maps_that_may_treat_layers_are_not(method: Any) -> None:
    assert has_norms(method)


@pytest.mark.parametrize("capture", ["never", "graph"])
@pytest.mark.parametrize("name", ["gradient", "smoothgrad"])
def test_the_attack_is_the_same_and_the_original_judges(
    name: str, capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nets.normed().double()
    explainer = trompe.explainer(name)
    found = attack(model, explainer=explainer, capture=capture)
    assert torch.equal(found.logits_adv, model(found.x_adv))
    again = trompe.heatmap(explainer(model, found.x_adv, found.target_class))
    assert torch.equal(found.map_adv, again)
    monkeypatch.setattr(making, "folded", lambda model, _: model)
    expected = attack(nets.normed().double(), explainer=explainer, capture=capture)
    assert not torch.equal(expected.x_adv, X)
    nets.close(found.history["loss"], expected.history["loss"], 1e-9)
    nets.close(found.x_adv, expected.x_adv, 1e-9)


def test_weights_changed_between_attacks_are_attacked_as_they_are() -> None:
    model = nets.normed().double()
    attack(model, capture="graph")
    model.conv1.weight.data.mul_(1.3)
    model.bn2.bias.data.add_(0.2)
    found = attack(model, capture="graph")
    expected = attack(model, capture="never")
    nets.close(found.x_adv, expected.x_adv, 1e-9)
