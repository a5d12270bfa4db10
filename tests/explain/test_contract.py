"""What every registered explanation method promises; new methods are covered as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.engine.capture import capture
from trompe.explain import Method, explainers

# Options that a method needs, or that make it quick. A method not named here has its defaults.
OPTIONS: dict[str, Callable[[nn.Module], dict[str, Any]]] = {
    "integrated_grad": lambda model: {"steps": 3},
    "smoothgrad": lambda model: {"samples": 2},
    "pattern_attribution": lambda model: {"patterns": nets.patterns_of(model)},
    "pattern_net": lambda model: {"patterns": nets.patterns_of(model)},
    "grad_cam": lambda model: {"positive": False},  # small random nets may have no positive part
    # Few copies: of hundreds, one or the other has a kink within a finite difference.
    "occlusion": lambda model: {"window": 3, "stride": 2},
    "rise": lambda model: {"samples": 8, "cells": 3},
    "lime": lambda model: {"samples": 8, "segments": 3},
    "kernel_shap": lambda model: {"samples": 12, "segments": 3},
}
# More cases of methods that wrap another one or have modes.
VARIANTS: dict[str, Callable[[nn.Module], Method]] = {
    "integrated_grad of the logit in chunks": lambda model: trompe.explainer(
        "integrated_grad", steps=3, score="logit", chunk=2, baseline=0.1
    ),
    "smoothgrad of lrp": lambda model: trompe.explainer(
        "smoothgrad", base=trompe.explainer("lrp"), samples=2
    ),
    "smoothgrad in chunks": lambda model: trompe.explainer("smoothgrad", samples=3, chunk=2),
    "rise in chunks, of the probability": lambda model: trompe.explainer(
        "rise", samples=7, cells=3, score="softmax", chunk=4, baseline=0.1
    ),
    "beta_smoothing of guided_backprop": lambda model: trompe.explainer(
        "beta_smoothing", base=trompe.explainer("guided_backprop")
    ),
}
# Explains networks with attention only, and no class; has its own tests.
ELSEWHERE = {"attention_rollout"}
ALL = [*(name for name in explainers.names() if name not in ELSEWHERE), *VARIANTS]
NO_BATCH_NORM = {"pattern_attribution", "pattern_net"}
EACH_NET = [
    pytest.param(name, make, id=f"{name}-{make.__name__}")
    for name in ALL
    for make in (nets.plain, nets.forms, nets.normed)
    if not (make is nets.normed and name in NO_BATCH_NORM)
]
each_method = pytest.mark.parametrize("name", ALL)
each_method_and_net = pytest.mark.parametrize(("name", "make"), EACH_NET)


def build(name: str, model: nn.Module) -> Method:
    if name in VARIANTS:
        return VARIANTS[name](model)
    options = OPTIONS.get(name, lambda model: {})(model)
    return trompe.explainer(name, **options)


close = nets.close
X = 0.6 * nets.images()  # within the bounds of the input space
TARGET = torch.tensor([2, 1])


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_finiteness(name: str, dtype: torch.dtype) -> None:
    model = nets.plain().to(dtype)
    relevance = build(name, model)(model, X.to(dtype), TARGET)
    assert relevance.shape == X.shape
    assert relevance.dtype == dtype
    assert bool(torch.isfinite(relevance).all())
    assert relevance.flatten(1).any(dim=1).all()


@each_method
def test_a_method_is_a_frozen_explainer_with_its_name(name: str) -> None:
    method = build(name, nets.plain())
    assert isinstance(method, trompe.Explainer)
    assert method.name == name.split()[0]
    with pytest.raises(AttributeError):
        method.anything = 1


@each_method_and_net
def test_the_map_of_a_batch_is_the_maps_of_its_images(
    name: str, make: Callable[[], nn.Module]
) -> None:
    model = make().double()
    x, target = 0.6 * nets.images(3), torch.tensor([3, 0, 3])
    method = build(name, model)
    together = method(model, x, target)
    for i in range(3):
        close(together[i : i + 1], method(model, x[i : i + 1], target[i : i + 1]), 1e-10)


@each_method
def test_the_explained_class_matters_and_only_in_its_image(name: str) -> None:
    model = nets.plain().double()
    method = build(name, model)
    one = method(model, X, torch.tensor([2, 1]))
    other = method(model, X, torch.tensor([2, 3]))
    close(one[0], other[0], 1e-12)
    assert not torch.allclose(one[1], other[1], rtol=1e-3)


@each_method
def test_logits_come_with_the_map_and_are_those_of_the_model(name: str) -> None:
    model = nets.plain().double()
    relevance, logits = build(name, model).explain(model, X, TARGET)
    close(logits, model(X), 1e-12)
    close(relevance, build(name, model)(model, X, TARGET), 1e-12)


@each_method
@pytest.mark.parametrize("requires_grad", [False, True])
def test_nothing_of_the_model_and_the_caller_changes(name: str, requires_grad: bool) -> None:
    model = nets.plain().double()
    model[3].requires_grad_(requires_grad)
    fired: list[int] = []
    model[0].register_forward_hook(lambda *_: fired.append(1))
    x, target = X.clone().requires_grad_(requires_grad), TARGET.clone()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    versions = [p._version for p in model.parameters()]
    attributes = [dict(m.__dict__) for m in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()]
    method = build(name, model)
    method(model, x, target)
    assert torch.equal(x, X)
    assert torch.equal(target, TARGET)
    assert x.requires_grad is requires_grad
    assert x.grad is None
    assert x._version == 0
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p._version for p in model.parameters()] == versions
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model[3].parameters()] == [requires_grad] * 2
    assert not any(m.training for m in model.modules())
    assert [(len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()] == hooks
    for module, before in zip(model.modules(), attributes, strict=True):
        assert module.__dict__.keys() == before.keys()
        assert all(module.__dict__[k] is v for k, v in before.items())
    assert fired  # the user's own hooks run as ever


@each_method
def test_a_graph_is_carried_if_one_is_wanted_and_only_then(name: str) -> None:
    model = nets.plain().double()
    method = build(name, model)
    expected = method(model, X, TARGET)
    assert not expected.requires_grad
    for x, trainable in ((X.clone().requires_grad_(True), False), (X, True)):
        model[3].weight.requires_grad_(trainable)
        relevance, logits = method.explain(model, x, TARGET)
        assert relevance.requires_grad
        assert logits.requires_grad
        close(relevance.detach(), expected, 1e-12)
        with torch.no_grad():
            relevance, logits = method.explain(model, x, TARGET)
        assert not relevance.requires_grad
        assert not logits.requires_grad
        close(relevance, expected, 1e-12)


@each_method
def test_works_in_inference_mode_with_tensors_made_there(name: str) -> None:
    model = nets.plain().double()
    method = build(name, model)
    expected = method(model, X, model(X).argmax(dim=1))
    with torch.inference_mode():
        for x in (X, X.clone()):
            target = model(x).argmax(dim=1)
            close(method(model, x, target).clone(), expected, 1e-12)
            smoothed = smooth(model, beta=torch.tensor(1e7, dtype=torch.float64))
            close(method(smoothed, x, target).clone(), expected, 1e-2)


@each_method_and_net
@pytest.mark.parametrize("pooling", [0.0, 1.0])
def test_the_derivative_of_the_map_against_finite_differences(
    name: str, make: Callable[[], nn.Module], pooling: float
) -> None:
    original = make().double()
    model = smooth(original, beta=3.0, pooling=pooling)
    method = build(name, original)
    generator = torch.Generator().manual_seed(11)
    direction, weight = torch.randn(2, *X.shape, generator=generator, dtype=torch.float64)
    x = X.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad((method(model, x, TARGET) * weight).sum(), x)

    def slope(step: float) -> Tensor:
        above = method(model, X + step * direction, TARGET)
        below = method(model, X - step * direction, TARGET)
        return ((above - below) * weight).flatten(1).sum(dim=1) / (2 * step)

    expected = (4 * slope(4e-6) - slope(8e-6)) / 3  # of fourth order
    found = (grad * direction).flatten(1).sum(dim=1)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-8)
    assert float(expected.abs().min()) > 1e-6


@each_method
def test_the_derivative_towards_a_weight_against_finite_differences(name: str) -> None:
    original = nets.plain().double()
    model = smooth(original, beta=3.0, pooling=1.0)
    method = build(name, original)
    parameter = original[3].weight
    kept = parameter.detach().clone()
    # Not across zero, where the positive part of a weight has a kink.
    direction = kept * torch.rand(kept.shape, dtype=torch.float64)
    parameter.requires_grad_(True)
    (grad,) = torch.autograd.grad(method(model, X, TARGET).square().sum(), parameter)
    sums = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.copy_(kept + sign * 1e-5 * direction)
        sums.append(float(method(model, X, TARGET).detach().square().sum()))
    expected = (sums[0] - sums[1]) / 2e-5
    assert float((grad * direction).sum()) == pytest.approx(expected, rel=2e-6)


@each_method
@pytest.mark.parametrize("form", nets.FORMS)
def test_a_model_may_be_written_in_any_way(name: str, form: str) -> None:
    reference, model = nets.forms().double(), nets.forms(form).double()
    close(model(X), reference(X), 1e-12)
    method = build(name, reference)
    close(method(model, X, TARGET), method(reference, X, TARGET), 1e-10)
    smoothed = smooth(model, beta=2.0, pooling=1.0), smooth(reference, beta=2.0, pooling=1.0)
    close(smoothed[0](X), smoothed[1](X), 1e-12)
    close(method(smoothed[0], X, TARGET), method(smoothed[1], X, TARGET), 1e-10)


@each_method_and_net
def test_the_map_of_the_relu_network_is_recovered_as_beta_grows(
    name: str, make: Callable[[], nn.Module]
) -> None:
    model = make().double()
    method = build(name, model)
    expected = method(model, X, TARGET)
    errors = []
    # Relevance that a ReLU does not mask reaches pools whose values are all zero: there the hard
    # maximum chooses the first, the smooth one shares out, however large beta is.
    pooling = 0.0 if name in {"deconvnet", "deeplift"} else 1.0
    for beta in (1.0, 1e6):
        relevance = method(smooth(model, beta=beta, pooling=pooling), X, TARGET)
        errors.append(float((relevance - expected).abs().max() / expected.abs().max()))
    assert errors[1] < 1e-3
    if not name.startswith("beta_smoothing"):  # which sets a beta of its own
        assert errors[0] > 100 * errors[1]


@each_method
@pytest.mark.parametrize("beta", [None, 10.0])
def test_float32_agrees_with_float64(name: str, beta: float | None) -> None:
    maps = []
    for dtype in (torch.float32, torch.float64):
        original = nets.plain().to(dtype)
        model = original if beta is None else smooth(original, beta=beta, pooling=1.0)
        maps.append(build(name, original)(model, X.to(dtype), TARGET).double())
    close(maps[0], maps[1], 2e-4)


@each_method
def test_the_same_call_gives_the_same_map(name: str) -> None:
    model = nets.plain()
    torch.manual_seed(1)
    first = build(name, model)(model, X.float(), TARGET)
    torch.manual_seed(2)
    assert torch.equal(first, build(name, model)(model, X.float(), TARGET))


@each_method
def test_changed_weights_are_seen(name: str) -> None:
    """Nothing that is kept between calls outlives a change of the weights."""
    model = nets.plain().double()
    method = build(name, model)
    before = method(model, X, TARGET)
    other = nets.plain(seed=9).double()
    model.load_state_dict(other.state_dict())
    after = method(model, X, TARGET)
    assert not torch.allclose(after, before, rtol=1e-2)
    close(after, method(other, X, TARGET), 1e-12)


@each_method_and_net
def test_captured_equals_as_written(name: str, make: Callable[[], nn.Module]) -> None:
    """One graph for all images of a shape, all classes and a growing beta, to the last bit."""
    original = make()
    model = smooth(original, beta=1.0, pooling=1.0)
    method = build(name, original)

    def look(x: Tensor, beta: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        model.beta = beta
        x = x.detach().requires_grad_(True)
        relevance, logits = method.explain(model, x, target)
        (grad,) = torch.autograd.grad(relevance.square().sum() + logits[:, 0].sum(), x)
        return relevance.detach(), logits.detach(), grad

    for batch in (1, 3):
        x, target = 0.6 * nets.images(batch, dtype=torch.float32), torch.arange(batch)
        look(x, torch.tensor(2.0), target)
        graph = capture(look, (x, torch.tensor(2.0), target))
        for seed, beta in ((1, 2.0), (2, 2.0), (3, 7.0), (4, 50.0)):
            other = 0.6 * nets.images(batch, seed, torch.float32)
            inputs = (other, torch.tensor(beta), (target + seed) % nets.CLASSES)
            with torch.no_grad():
                found = graph(*inputs)
            for one, expected in zip(found, look(*inputs), strict=True):
                assert torch.equal(one, expected)
            assert bool(expected.any())


@each_method
def test_exchanged_weights_are_seen(name: str) -> None:
    """``model.to(...)`` and ``weight.data = ...`` count no new version."""
    model = nets.plain()
    method = build(name, model)
    method(model, X.float(), TARGET)
    model.double()
    close(method(model, X, TARGET), method(nets.plain().double(), X, TARGET), 1e-6)
    for mine, its in zip(model.parameters(), nets.plain(seed=9).double().parameters(), strict=True):
        mine.data = its.data
    close(method(model, X, TARGET), method(nets.plain(seed=9).double(), X, TARGET), 1e-12)


@each_method
def test_bad_classes_and_outputs_are_named(name: str) -> None:
    model = nets.plain().double()
    method = build(name, model)
    for target in (torch.tensor([0, 4]), torch.tensor([0, -1]), torch.tensor([0])):
        with pytest.raises(trompe.TrompeError, match="target"):
            method(model, X, target)
    with pytest.raises(trompe.TrompeError, match=r"\[B, K\]"):
        method(nn.Sequential(model[0], model[1]), X, TARGET)


@each_method
def test_vectors_are_explained_like_images(name: str) -> None:
    if name == "grad_cam":
        pytest.skip("a network on vectors has no feature maps")
    model = nets.seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), 4)
    x = torch.rand(2, 6)
    relevance = build(name, model)(model, x, torch.tensor([0, 2]))
    assert relevance.shape == x.shape
    assert relevance.any()


def test_every_name_is_documented_and_options_are_checked() -> None:
    for name in explainers.names():
        assert explainers[name].__doc__
        assert explainers[name].name == name
    with pytest.raises(trompe.TrompeError, match=r"no option 'wrong'"):
        trompe.explainer("gradient", wrong=1)
    with pytest.raises(trompe.TrompeError, match=r"unknown explanation method 'x'.*lrp"):
        trompe.explainer("x")


def test_the_comparison_itself_can_fail() -> None:
    for wrong in (X * (1 + 1e-3), torch.zeros_like(X)):
        with pytest.raises(AssertionError):
            close(X, wrong, 1e-6)
