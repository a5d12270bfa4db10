"""The paper's hyper-parameters, per method (section 3 of its supplement)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import Adam, Preset, ValidImage, manipulate, preset_for, presets
from trompe.attacks.surrogate import differentiated
from trompe.engine import smooth
from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.explain.beta_smoothing import BetaSmoothing
from trompe.explain.gradient import Gradient
from trompe.explain.guided_backprop import GuidedBackprop
from trompe.explain.mean_of import MeanOf
from trompe.explain.smoothgrad import SmoothGrad
from trompe.metrics import pcc
from trompe.types import Explanation, heatmap
from trompe.zoo import load_model
from trompe.zoo.images import default_images

PAPER = {
    "gradient": (1500, 1e-3, 10.0),
    "grad_times_input": (1500, 1e-3, 10.0),
    "guided_backprop": (1500, 1e-3, 10.0),
    "integrated_grad": (500, 5e-3, 10.0),
    "lrp": (1500, 2e-4, None),
    "pattern_attribution": (1500, 2e-3, 10.0),
}
SMOOTHGRAD = {"gradient": (1500, 3e-3, 10.0), "lrp": (1500, 3e-4, None)}
BETA_SMOOTHING = {
    "gradient": (500, 2.5e-4, None),
    "grad_times_input": (500, 2.5e-4, None),
    "integrated_grad": (200, 2.5e-3, None),
    "lrp": (1500, 2e-4, None),
    "guided_backprop": (500, 5e-4, None),
    "pattern_attribution": (500, 5e-4, None),
}
CASES = [
    *((name, None, row) for name, row in PAPER.items()),
    *((name, "smoothgrad", row) for name, row in SMOOTHGRAD.items()),
    *((name, "beta_smoothing", row) for name, row in BETA_SMOOTHING.items()),
]


@pytest.mark.parametrize(("name", "around", "row"), CASES)
def test_the_table_of_the_paper(
    name: str, around: str | None, row: tuple[int, float, float | None]
) -> None:
    method = trompe.explainer(name)
    if around:
        method = trompe.explainer(around, base=method)
    settings = preset_for("paper", method, 224)
    iterations, learning_rate, beta_start = row
    assert (settings.iterations, settings.beta_start) == (iterations, beta_start)
    assert settings.step == Adam(learning_rate)
    assert settings.constraint == ValidImage()
    assert settings.prefactors == (1e11, 1e6)
    assert settings.pooling == 0
    assert settings.closeness == 0
    assert settings.strictness(0, 1500) == 1
    if settings.beta_start is not None:
        assert settings.beta_end == 100


def test_beta_grows_geometrically_and_never_arrives() -> None:
    settings = Preset()
    assert settings.beta(0, 1500) == 10
    assert settings.beta(750, 1500) == pytest.approx(10 * 10**0.5)
    assert settings.beta(1499, 1500) == pytest.approx(10 * 10 ** (1499 / 1500))
    assert settings.beta(1499, 1500) < 100
    assert Preset(beta_start=None).beta(3, 10) is None
    assert Preset(beta_start=30, beta_end=300).beta(5, 10) == pytest.approx(30 * 10**0.5)


def test_the_output_is_held_the_tighter_the_longer() -> None:
    settings = Preset(output_start=0.01)
    assert settings.strictness(0, 100) == pytest.approx(0.01)
    assert settings.strictness(50, 100) == pytest.approx(0.1)
    assert settings.strictness(99, 100) < 1
    assert settings.strictness(100, 100) == 1


@pytest.mark.parametrize("around", ["smoothgrad", "beta_smoothing"])
def test_an_average_is_attacked_as_what_is_averaged(around: str) -> None:
    for name in ("gradient", "lrp", "guided_backprop"):
        plain = trompe.explainer(name)
        wrapped = trompe.explainer(around, base=plain)
        assert preset_for("fast", wrapped, 64) == preset_for("fast", plain, 64)
        twice = trompe.explainer("smoothgrad", base=wrapped)
        assert preset_for("fast", twice, 64) == preset_for("fast", plain, 64)


@dataclass(frozen=True)
class Own(Method):
    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        return Explanation(x, model(x))


def test_an_average_of_a_method_of_ones_own_is_attacked_as_the_gradient() -> None:
    wrapped = trompe.explainer("smoothgrad", base=Own())
    assert preset_for("fast", wrapped, 64) == preset_for("fast", trompe.explainer("gradient"), 64)


@pytest.mark.parametrize("name", ["gradient", "lrp", "guided_backprop"])
def test_thorough_is_fast_given_time_and_weighs_gradients_otherwise(name: str) -> None:
    method = trompe.explainer(name)
    fast, thorough = (preset_for(preset, method, 224) for preset in ("fast", "thorough"))
    assert thorough.iterations == 12 * fast.iterations
    assert thorough.closeness == fast.closeness
    assert (thorough.prefactors < fast.prefactors) == (name == "gradient")
    assert (thorough.constraint, thorough.pooling) == (fast.constraint, fast.pooling)


def test_unknown_presets_are_named() -> None:
    assert presets.names() == ["fast", "paper", "thorough"]
    with pytest.raises(UsageError, match="unknown preset 'papre': did you mean paper"):
        preset_for("papre", trompe.explainer("gradient"), 224)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"iterations": -1}, "iterations"),
        ({"prefactors": (-1.0, 1.0)}, "prefactors"),
        ({"prefactors": (1.0, float("inf"))}, "prefactors"),
        ({"beta_start": 0.0}, "beta"),
        ({"beta_end": -1.0}, "beta"),
        ({"pooling": -1.0}, "pooling"),
        ({"closeness": -1.0}, "closeness"),
        ({"output_start": 0.0}, "output_start"),
        ({"output_start": 2.0}, "output_start"),
    ],
)
def test_settings_out_of_range(changes: dict[str, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Preset(**changes)


@pytest.mark.parametrize("name", ["paper", "fast", "thorough"])
@pytest.mark.parametrize("method", ["occlusion", "rise", "lime", "kernel_shap"])
def test_maps_made_of_outputs_alone_are_attacked_on_the_network_itself(
    name: str, method: str
) -> None:
    made = trompe.explainer(method)
    for one in (made, trompe.explainer("smoothgrad", base=made)):
        assert preset_for(name, one, 64).beta_start is None


def test_guided_backpropagation_is_followed_through_its_gates() -> None:
    """With the smooth cut the same settings reach less of every pair."""
    loaded = load_model("tiny-vgg")
    x = loaded.input_space.from_pixels(torch.stack(list(default_images(64).values())))
    aim = heatmap(GuidedBackprop()(loaded.model, x.roll(1, 0), loaded.model(x).argmax(1).roll(1)))
    found = {}
    settings = preset_for("fast", "guided_backprop", 64)
    assert settings.hard_cut
    for hard in (False, True):
        result = manipulate(
            loaded,
            x,
            aim.detach(),
            explainer="guided_backprop",
            preset=replace(settings, hard_cut=hard),
            iterations=60,
        )
        assert bool(result.class_kept.all())
        found[hard] = pcc(result.map_adv, result.aim)
    assert bool((found[True] > found[False]).all()), found
    assert float((found[True] - found[False]).mean()) > 0.15, found


@pytest.mark.parametrize("name", ["guided_backprop", "smoothgrad", "mean_of"])
def test_the_hard_cut_reaches_the_method_that_is_wrapped(name: str) -> None:
    inner = GuidedBackprop()
    method = {
        "guided_backprop": inner,
        "smoothgrad": SmoothGrad(base=inner),
        "mean_of": MeanOf(methods=(inner, Gradient())),
    }[name]
    settings = preset_for("fast", inner, 64)
    model = torch.nn.Linear(1, 1)
    assert "hard_cut=True" in repr(differentiated(settings, model, method))
    assert differentiated(replace(settings, hard_cut=False), model, method) is method
    assert differentiated(settings, smooth(model, beta=1.0), method) is method
    defence = BetaSmoothing(base=inner)
    assert differentiated(settings, model, defence) is defence
