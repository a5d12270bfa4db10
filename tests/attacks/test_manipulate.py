"""The attack on small networks: it gets nearer, keeps the class, and ends well."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import nets
import pytest
import torch
from attacking import manipulate
from torch import Tensor, nn

import trompe
from trompe.attacks import Adam, Identity, Keep, L2Ball, Preset
from trompe.attacks.observation import observe
from trompe.errors import ExplanationError, ModelError, TargetError, UsageError

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3))
SOON: dict[str, Any] = {
    "input_space": SPACE,
    "iterations": 25,
    "learning_rate": 0.01,
    "prefactors": (1e5, 1e2),
}


def target_maps(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, 8, 8, generator=generator, dtype=torch.float64) ** 2


AIM = target_maps()


class Softplus(nn.Module):
    """A smooth network, that needs no surrogate."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.plain().double()

    def forward(self, x: Tensor) -> Tensor:
        return trompe.smooth(self.net, beta=5.0, pooling=1.0)(x)


def mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).mean(dim=1)


@pytest.mark.parametrize("method", ["gradient", "grad_times_input", "guided_backprop", "lrp"])
def test_the_map_gets_nearer_and_the_class_stays(method: str) -> None:
    net = nets.plain().double()
    # The smooth cut of guided backpropagation is far from the sharp one where beta is small.
    growth = (100.0, 1000.0) if method == "guided_backprop" else "preset"
    result = manipulate(net, X, AIM, explainer=method, beta_growth=growth, **SOON)
    aim = AIM / AIM.sum(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(result.map_target, aim)
    before, after = mse(result.map_original, aim), mse(result.map_adv, aim)
    assert bool((after <= before).all())
    assert int((after < before).sum()) >= 2
    assert float((after / before).mean()) < 0.95
    assert bool(result.class_kept.all())
    assert result.stopped == "finished"
    assert result.iterations == 25
    assert torch.equal(result.x, X)


@pytest.mark.parametrize("surrogate", [True, False])
def test_everything_is_judged_on_the_original_for_the_original_class(surrogate: bool) -> None:
    net = nets.plain().double() if surrogate else Softplus()
    growth = (5.0, 50.0) if surrogate else None
    result = manipulate(net, X, AIM, beta_growth=growth, **SOON)
    target = net(X).argmax(dim=1)
    assert torch.equal(result.target_class, target)
    method = trompe.explainer("gradient")
    for x, heat, logits in (
        (result.x, result.map_original, result.logits_original),
        (result.x_adv, result.map_adv, result.logits_adv),
    ):
        nets.close(heat, trompe.heatmap(method(net, x, target)), 1e-12)
        nets.close(logits, net(x), 1e-12)
    assert torch.equal(SPACE.clamp(result.x_adv), result.x_adv)
    history = result.history
    assert {k: tuple(v.shape) for k, v in history.items()} == dict.fromkeys(history, (25, 3))
    if surrogate:
        expected = 5 * 10 ** (torch.arange(25, dtype=torch.float64) / 25)
        torch.testing.assert_close(history["beta"][:, 0], expected)
        smoothed = trompe.smooth(net, beta=5.0)
        first = trompe.heatmap(method(smoothed, X, target))
    else:
        assert bool(history["beta"].isnan().all())
        first = result.map_original
    torch.testing.assert_close(history["map_mse"][0], mse(first, result.map_target))
    assert float(history["image_mse"][0].max()) == 0
    assert float(history["image_mse"][-1].min()) > 0


def test_each_image_is_attacked_as_if_it_were_alone() -> None:
    for method in ("gradient", "lrp", "integrated_grad"):
        explainer = trompe.explainer(method)
        if method == "integrated_grad":
            explainer = trompe.explainer(method, steps=3)
        settings = {**SOON, "iterations": 11, "explainer": explainer, "beta_growth": (5.0, 20.0)}
        together = manipulate(nets.plain().double(), X, AIM, **settings)
        for i in range(3):
            alone = manipulate(nets.plain().double(), X[i : i + 1], AIM[i : i + 1], **settings)
            torch.testing.assert_close(together.x_adv[i], alone.x_adv[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(together.map_adv[i], alone.map_adv[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(together.history["loss"][:, i], alone.history["loss"][:, 0])


def test_the_first_step_is_adams() -> None:
    """After bias correction it moves every pixel by the learning rate against the sign."""
    net = Softplus()
    x = (0.3 * X).requires_grad_(True)
    settings = {**SOON, "iterations": 1, "beta_growth": None, "keep": "last"}
    result = manipulate(net, x, AIM, **settings)
    target = net(x).argmax(dim=1)
    heat = trompe.heatmap(trompe.explainer("gradient")(net, x, target))
    aim = AIM / AIM.sum(dim=(1, 2), keepdim=True)
    (grad,) = torch.autograd.grad(mse(heat, aim).sum(), x)  # the output's error is 0 at the start
    step = 0.01 * 1e5 * grad / ((1e5 * grad).abs() + 1e-8)
    torch.testing.assert_close(result.x_adv, (x - step).detach(), rtol=0, atol=1e-9)


def test_the_same_settings_give_the_same_result() -> None:
    settings = {**SOON, "iterations": 5, "start_noise": 0.1}
    results = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        results.append(manipulate(nets.plain().double(), X, AIM, generator=generator, **settings))
    assert torch.equal(results[0].x_adv, results[1].x_adv)
    assert torch.equal(results[0].history["loss"], results[1].history["loss"])
    assert not torch.equal(results[0].history["loss"], results[2].history["loss"])


@pytest.mark.parametrize("requires_grad", [True, False])
def test_nothing_of_the_caller_changes(requires_grad: bool) -> None:
    net = nets.normed().double().train().requires_grad_(requires_grad)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    x, aim = X.clone().requires_grad_(True), AIM.clone()
    settings = {**SOON, "iterations": 2}
    results = []
    for mode in (torch.enable_grad(), torch.no_grad()):
        with mode:
            results.append(manipulate(net, x, aim, **settings))
    result = results[0]
    assert not torch.equal(result.x_adv, X)
    assert torch.equal(result.x_adv, results[1].x_adv)
    assert torch.equal(x, X)
    assert x.grad is None
    assert torch.equal(aim, AIM)
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad is requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
    nets.close(result.logits_original, net.eval()(X), 1e-12)
    assert not result.x_adv.requires_grad
    result.x_adv.zero_()  # the result is the caller's own
    assert torch.equal(x, X)


def test_works_in_inference_mode() -> None:
    settings = {**SOON, "iterations": 2}
    net = nets.plain().double()
    expected = manipulate(net, X, AIM, **settings)
    with torch.inference_mode():
        found = manipulate(net, X.clone(), AIM.clone(), **settings)
        assert torch.equal(found.x_adv, expected.x_adv)


class Drifting:
    """An explainer of one's own, whose map of an image is the image itself, in magnitude."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return x * x


def test_an_explainer_of_ones_own() -> None:
    net = nets.plain().double()
    result = manipulate(net, X, AIM, explainer=Drifting(), **SOON)
    assert bool(
        (
            mse(result.map_adv, result.map_target)
            < 0.9 * mse(result.map_original, result.map_target)
        ).all()
    )
    assert result.provenance["method"] == "Drifting"


class Flips(nn.Module):
    """Another class as soon as the first pixel has fallen by 0.05."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0, 0, 0] - self.at
        return torch.stack([first, -first], dim=1)


def test_the_best_iterate_that_keeps_the_class_is_kept() -> None:
    """The aim lies where the class is lost: best is the last step before that, last is beyond."""
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    aim = torch.tensor([[0.1, 0.5], [0.5, 0.5]], dtype=torch.float64)
    settings: dict[str, Any] = {
        "explainer": Drifting(),
        "input_space": trompe.InputSpace((0.0,), (1.0,)),
        "iterations": 30,
        "learning_rate": 0.01,
        "prefactors": (1e3, 0.0),
        "beta_growth": None,
    }
    model = Flips(0.4)
    best = manipulate(model, x, aim, keep="best", **settings)
    last = manipulate(model, x, aim, keep="last", **settings)
    assert bool(best.class_kept.all())
    assert not bool(last.class_kept.any())
    assert 0.4 <= float(best.x_adv[0, 0, 0, 0]) < 0.42
    assert float(last.x_adv[0, 0, 0, 0]) < 0.35
    assert float(mse(best.map_adv, best.map_target)) < float(
        mse(best.map_original, best.map_target)
    )


def test_the_original_is_kept_where_nothing_is_better() -> None:
    net = nets.plain().double()
    heat = manipulate(net, X, AIM, **{**SOON, "iterations": 0}).map_original
    result = manipulate(net, X, heat, **{**SOON, "learning_rate": 0.5})
    assert torch.equal(result.x_adv, X)
    assert torch.equal(result.map_adv, result.map_original)


def test_no_iterations() -> None:
    result = manipulate(nets.plain().double(), X, AIM, **{**SOON, "iterations": 0})
    assert torch.equal(result.x_adv, X)
    assert result.iterations == 0
    assert {name: len(noted) for name, noted in result.history.items()} == dict.fromkeys(
        ("loss", "map_pcc", "map_mse", "output_mse", "image_mse", "beta"), 0
    )
    assert result.stopped == "finished"
    nets.close(result.map_adv, result.map_original, 1e-14)


def test_an_interruption_returns_the_best_so_far() -> None:
    calls: list[tuple[int, int]] = []

    def progress(iteration: int, iterations: int, numbers: Mapping[str, float]) -> None:
        calls.append((iteration, iterations))
        assert set(numbers) >= {"similarity", "loss"}
        assert -1 <= numbers["similarity"] <= 1
        if iteration == 7:
            raise KeyboardInterrupt

    net = nets.plain().double()
    result = manipulate(net, X, AIM, progress=progress, **SOON)
    assert calls == [(i, 25) for i in range(1, 8)]
    assert result.stopped == "interrupted"
    assert result.iterations == 7
    assert len(result.history["loss"]) == 7
    assert bool(result.class_kept.all())
    assert bool(
        (mse(result.map_adv, result.map_target) < mse(result.map_original, result.map_target)).all()
    )


class Breaks(nn.Module):
    """Not a number for images whose mean has moved away from where it was."""

    def __init__(self, net: nn.Module, origin: Tensor, reach: float) -> None:
        super().__init__()
        self.net = net
        self.origin = origin
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        # Squared, since a surrogate smooths the kink of an absolute value.
        change = (x - self.origin[: len(x)]).square().detach()
        moved = (change > self.reach**2).flatten(1).any(dim=1)
        logits = self.net(x)
        return logits + torch.where(moved, torch.nan, 0.0).view(-1, 1)


@pytest.mark.parametrize("beta_growth", [(5.0, 50.0), None])
def test_not_a_number_stops_the_attack_with_what_it_had(
    beta_growth: tuple[float, float] | None, caplog: pytest.LogCaptureFixture
) -> None:
    net = Softplus() if beta_growth is None else nets.plain().double()
    model = Breaks(net, X, 0.035)
    with caplog.at_level(logging.WARNING, "trompe"):
        result = manipulate(model, X, AIM, **SOON, beta_growth=beta_growth)
    assert result.stopped == "not finite"
    assert 3 <= result.iterations < 10  # before an iterate of the surrogate is judged by itself
    assert "no longer finite" in caplog.text
    assert bool(torch.isfinite(result.x_adv).all())
    assert bool(torch.isfinite(result.map_adv).all())
    assert bool(result.class_kept.all())
    before, after = (mse(m, result.map_target) for m in (result.map_original, result.map_adv))
    assert bool((after <= before).all())
    assert int((after < before).sum()) >= 2


class BreaksSome(Breaks):
    """``Breaks``, for all images but the second: those nearer to it than to the others."""

    def forward(self, x: Tensor) -> Tensor:
        broken = super().forward(x)
        nearest = torch.cdist(x.detach().flatten(1), X.flatten(1)).argmin(dim=1)
        return torch.where((nearest == 1).view(-1, 1), self.net(x), broken)


def test_not_a_number_in_one_image_leaves_the_others_alone() -> None:
    net = Softplus()
    clean = manipulate(net, X, AIM, **SOON, beta_growth=None)
    mixed = manipulate(BreaksSome(net, X, 0.035), X, AIM, **SOON, beta_growth=None)
    assert mixed.stopped == "finished"
    assert mixed.iterations == 25
    torch.testing.assert_close(mixed.x_adv[1], clean.x_adv[1], rtol=0, atol=1e-9)
    assert bool(torch.isfinite(mixed.map_adv).all())
    assert mixed.history["loss"].isnan().any(dim=0).tolist() == [True, False, True]
    assert float((mixed.x_adv[0] - X[0]).abs().max()) <= 0.035


def test_a_relu_network_without_growth_warns_that_nothing_can_move(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = nets.plain().double()
    with caplog.at_level(logging.WARNING, "trompe"):
        still = manipulate(net, X, AIM, beta_growth=None, **{**SOON, "iterations": 3})
    assert "gradient is zero for image [0, 1, 2]" in caplog.text
    assert still.provenance["vanishing_gradient"] == [True] * 3
    assert torch.equal(still.x_adv, X)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "trompe"):
        moving = manipulate(net, X, AIM, **{**SOON, "iterations": 3})
    assert caplog.text == ""
    assert moving.provenance["vanishing_gradient"] == [False] * 3


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_map_that_no_image_can_change_is_told_before_the_first_step(
    preset: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7)
    ).double()
    net(X)
    # Without max pooling deconvnet uses nothing of the image: J^T of the weights alone.
    settings = {**SOON, "preset": preset, "explainer": "deconvnet"}
    with caplog.at_level(logging.WARNING, "trompe"):
        still = manipulate(net, X, AIM, **settings)
    assert "deconvnet is not attacked: its map of this model is the same" in caplog.text
    assert (still.iterations, still.stopped) == (0, "the map does not depend on the image")
    assert torch.equal(still.x_adv, X)
    pooled = nn.Sequential(net[0], nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7))
    pooled.double()(X)
    assert manipulate(pooled, X, AIM, **settings).stopped == "finished"


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_a_heavy_output_term_keeps_the_output(output: Any) -> None:
    def change(weight: float) -> float:
        settings = {**SOON, "prefactors": (1e5, weight), "beta_growth": None, "keep": "last"}
        result = manipulate(Softplus(), X, AIM, keep_output=output, **settings)
        before, after = result.logits_original, result.logits_adv
        if output == "softmax":
            before, after = before.softmax(dim=1), after.softmax(dim=1)
        error = (after - before).square().mean(dim=1)
        found = result.history["output_mse"]
        assert float(found[0].max()) == 0
        return float(error.mean())

    assert change(1e4) < 0.3 * change(0.0)


def test_settings_of_ones_own_and_provenance() -> None:
    settings = Preset(iterations=2, step=Adam(0.02), beta_start=3.0, beta_end=9.0, pooling=2.0)
    result = manipulate(nets.plain().double(), X, AIM, preset=settings, input_space=SPACE)
    assert result.iterations == 2
    found = result.provenance
    assert found["preset"] == "custom"
    assert found["step"] == {"name": "Adam", "learning_rate": 0.02}
    assert found["constraint"] == {"name": "ValidImage"}
    assert (found["beta_start"], found["pooling"]) == (3.0, 2.0)
    assert found["method"] == "gradient"
    assert found["dtype"] == "float64"
    torch.testing.assert_close(
        result.history["beta"][:, 0], torch.tensor([3.0, 3 * 3**0.5], dtype=torch.float64)
    )


def test_the_input_space_reaches_the_method() -> None:
    net = nets.plain().double()
    result = manipulate(net, X, AIM, explainer="lrp", **{**SOON, "iterations": 0})
    method = trompe.explainer("lrp", input_space=SPACE)
    expected = trompe.heatmap(method(net, X, result.target_class))
    nets.close(result.map_original, expected, 1e-12)


def test_one_map_serves_all_images_and_its_scale_does_not_matter() -> None:
    settings = {**SOON, "iterations": 2}
    net = nets.plain().double()
    repeated = manipulate(net, X, AIM[:1].expand(3, 8, 8), **settings)
    for aim in (AIM[0], AIM[:1], -7 * AIM[0]):
        found = manipulate(net, X, aim, **settings)
        torch.testing.assert_close(found.x_adv, repeated.x_adv)
        torch.testing.assert_close(found.map_target.sum(dim=(1, 2)), torch.ones(3).double())


@pytest.mark.parametrize(
    ("aim", "complaint"),
    [
        (torch.zeros(8, 8), "all zero"),
        (torch.cat([AIM[:2], torch.zeros(1, 8, 8)]), "all zero"),
        (torch.full((8, 8), torch.nan), "not finite"),
        (torch.full((8, 8), torch.inf), "not finite"),
        (torch.ones(8, 7), "resize it first"),
        (torch.ones(3, 3, 8, 8), "resize it first"),
        (torch.ones(8), "resize it first"),
        (torch.ones(2, 8, 8), "2 target maps for 3 images"),
    ],
)
def test_targets_that_cannot_be_aimed_at(aim: Tensor, complaint: str) -> None:
    with pytest.raises(TargetError, match=complaint) as caught:
        manipulate(nets.plain().double(), X, aim, **SOON)
    assert "\n" not in str(caught.value)


class Returns(nn.Module):
    """Whatever the function makes of the logits of a real network."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.net = nets.plain().double()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda y: (y, y), "tuple"),
        (lambda y: y * torch.nan, "not finite"),
        (lambda y: y[:1], r"\(1, 4\)"),
        (lambda y: y[0], r"\(4,\)"),
        (lambda y: y.view(-1, 2, 2), r"\(2, 2, 2\)"),
    ],
)
def test_models_that_are_no_classifiers(change: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        manipulate(Returns(change), X, AIM, **SOON)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"x": X[:0]}, r"\[B, C, H, W\]"),
        ({"x": (X * 10).to(torch.int64)}, "floating point"),
        ({"x": X * torch.nan}, "not finite"),
        ({"explainer": "gradeint"}, "unknown explanation method 'gradeint'"),
        ({"explainer": 3}, "a name of .* or a function"),
        ({"preset": "papre"}, "unknown preset"),
        ({"beta_growth": (0.0, 10.0)}, "beta"),
        ({"beta_growth": (10.0, -1.0)}, "beta"),
        ({"iterations": -1}, "iterations"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"pooling": -1.0}, "pooling"),
        ({"keep_output": "probabilities"}, "output"),
        ({"keep": "worst"}, "keep"),
        ({"start_noise": -1.0}, "start_noise"),
        ({"input_space": trompe.InputSpace((0.5,), (0.5,))}, "1 channel"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], complaint: str) -> None:
    settings = {"x": X, **SOON, **changes}
    with pytest.raises(UsageError, match=complaint) as caught:
        manipulate(nets.plain().double(), settings.pop("x"), AIM, **settings)
    assert "\n" not in str(caught.value)


def test_an_image_without_a_map_is_named() -> None:
    net = nets.plain().double()
    net[8].weight.zero_()
    with pytest.raises(ExplanationError, match="image 0 is all zero"):
        manipulate(net, X, AIM, **SOON)


def test_observing_uses_one_forward_pass() -> None:
    net, passes = nets.plain().double(), []
    net.register_forward_hook(lambda *_: passes.append(1))
    seen = observe(net, trompe.explainer("gradient"), X, torch.tensor([0, 1, 2]))
    assert len(passes) == 1
    nets.close(seen.logits, net(X), 1e-14)


def test_images_that_the_model_cannot_take_are_named() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    with pytest.raises(ModelError, match=r"fails on images of shape \(1, 3, 9, 9\)"):
        trompe.manipulate(net, torch.zeros(1, 3, 9, 9), torch.ones(9, 9))


def test_a_batch_norm_in_training_mode_is_refused() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ModelError, match=r"'1'.* in training mode"):
        trompe.explainer("gradient")(net, torch.zeros(1, 3, 4, 4), torch.tensor([0]))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_class_of_ones_own_is_explained_and_the_predicted_one_kept() -> None:
    net = nets.plain().double()
    predicted = net(X).argmax(dim=1)
    wanted = (predicted + 1) % net(X).shape[1]
    result = manipulate(net, X, AIM, target=wanted, **SOON)
    assert torch.equal(result.target_class, wanted)
    method = trompe.explainer("gradient")
    nets.close(result.map_original, trompe.heatmap(method(net, X, wanted)), 1e-12)
    nets.close(result.map_adv, trompe.heatmap(method(net, result.x_adv, wanted)), 1e-12)
    assert torch.equal(net(result.x_adv).argmax(dim=1), predicted)
    assert bool(result.class_kept.all())
    one = manipulate(net, X, AIM, target=2, batch_size=2, **SOON)
    assert one.target_class.tolist() == [2, 2, 2]
    parts = manipulate(net, X, AIM, target=wanted.tolist(), batch_size=2, **SOON)
    torch.testing.assert_close(parts.x_adv, result.x_adv)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ([0, 1], r"shape \(2,\) for 3 images"),
        ([0, 1, 99], "the classes are 0..3"),
        (-1, "the classes are 0..3"),
        (torch.tensor([0.0, 1.0, 2.0]), "whole numbers"),
    ],
)
def test_classes_that_do_not_exist(target: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        manipulate(nets.plain().double(), X, AIM, target=target, **SOON)
    assert "\n" not in str(caught.value)


def test_an_iterate_beyond_the_tolerance_does_not_count() -> None:
    def largest(keep: Keep) -> Tensor:
        settings = {**SOON, "prefactors": (1e5, 0.0), "iterations": 60, "keep_output": keep}
        result = manipulate(Softplus(), X, AIM, beta_growth=None, **settings)
        assert bool(result.found.any())
        return (result.logits_adv - result.logits_original).abs().amax(dim=1)

    loose = largest(Keep("logits"))
    tolerance = 0.3 * float(loose.max())
    tight = largest(Keep("logits", tolerance=tolerance))
    assert float(loose.max()) > tolerance
    assert float(tight.max()) <= tolerance


def test_nothing_found_is_no_success() -> None:
    net = nets.plain().double()
    still = manipulate(net, X, AIM, **{**SOON, "iterations": 0})
    assert still.found.tolist() == still.success.tolist() == [False] * 3
    assert bool(still.class_kept.all())
    moved = manipulate(net, X, AIM, **SOON)
    assert torch.equal(moved.found, (moved.x_adv != X).flatten(1).any(dim=1))
    assert int(moved.success.sum()) >= 2


def test_the_ball_is_kept_and_the_identity_channel_changes_nothing() -> None:
    net = nets.plain().double()
    plain = trompe.manipulate(net, X, AIM, input_space=SPACE, iterations=6)

    twice = trompe.manipulate(net, X, AIM, input_space=SPACE, iterations=6, through=[Identity()])
    torch.testing.assert_close(twice.x_adv, plain.x_adv)
    small = trompe.manipulate(
        net, X, AIM, input_space=SPACE, iterations=6, constraint=L2Ball(0.01), keep="last"
    )
    size = L2Ball(0.01).size(small.x_adv, X, SPACE)
    assert float(size.max()) <= 0.01 * (1 + 1e-5)
    assert float(size.min()) > 0.005
    assert small.provenance["constraint"] == {"name": "L2Ball", "radius": 0.01}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"objective": "reach_mop"}, "unknown objective 'reach_mop'"),
        ({"objective": 3}, "objective must be a name or an Objective"),
        ({"constraint": "l2"}, "constraint takes a Constraint, not 'l2'"),
        ({"constraint": L2Ball}, "call it"),
        ({"through": ["jpeg"]}, "through takes a Channel"),
        ({"step": 0.1}, "step takes a Step"),
        ({"keep_output": 1}, "keep_output must be a Keep"),
    ],
)
def test_parts_that_are_none(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        trompe.manipulate(nets.plain().double(), X, AIM, input_space=SPACE, **changes)
    assert "\n" not in str(caught.value)
