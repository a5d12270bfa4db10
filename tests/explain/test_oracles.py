"""Agreement with captum, zennit and autograd where the definitions are the same."""

from __future__ import annotations

import copy
import warnings

import captum.attr
import nets
import pytest
import torch
import torch.nn.functional as F
import zennit.composites
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.errors import UsageError

X, TARGET = 0.6 * nets.images(), torch.tensor([2, 1])
MAKERS = [nets.plain, nets.normed, lambda: nets.forms("modules_used")]
each_net = pytest.mark.parametrize("make", MAKERS, ids=["plain", "normed", "forms"])


def captum_of(kind: type, net: nn.Module, **options: object) -> Tensor:
    """Captum writes hooks and gradients into the model and the input: give it copies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = X.clone().requires_grad_(True)
        return kind(copy.deepcopy(net)).attribute(x, target=TARGET, **options).detach()


@each_net
def test_gradient(make: object) -> None:
    net = make().double()  # type: ignore[operator]
    found = trompe.explainer("gradient")(net, X, TARGET)
    nets.close(found, captum_of(captum.attr.Saliency, net, abs=False), 1e-12)
    x = X.clone().requires_grad_(True)

    (expected,) = torch.autograd.grad(net(x).gather(1, TARGET.view(-1, 1)).sum(), x)
    nets.close(found, expected, 1e-12)


@each_net
def test_grad_times_input(make: object) -> None:
    net = make().double()  # type: ignore[operator]
    found = trompe.explainer("grad_times_input")(net, X, TARGET)
    nets.close(found, captum_of(captum.attr.InputXGradient, net), 1e-12)


@each_net
@pytest.mark.parametrize("score", ["softmax", "logit"])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_integrated_grad(make: object, score: str, baseline: float) -> None:
    net = make().double()  # type: ignore[operator]
    # Captum's step sizes are float32: eight steps are exact in it.
    method = trompe.explainer("integrated_grad", steps=8, score=score, baseline=baseline)
    explained = nn.Sequential(net, nn.Softmax(dim=1)) if score == "softmax" else net
    expected = captum_of(
        captum.attr.IntegratedGradients,
        explained,
        baselines=baseline,
        n_steps=8,
        method="riemann_right",
    )
    nets.close(method(net, X, TARGET), expected, 1e-10)


def test_a_baseline_image_is_taken_as_it_is() -> None:
    net, baseline = nets.plain().double(), nets.images(1, seed=5)[0]
    found = trompe.explainer("integrated_grad", steps=4, baseline=baseline, score="logit")
    expected = captum_of(
        captum.attr.IntegratedGradients,
        net,
        baselines=baseline.expand_as(X),
        n_steps=4,
        method="riemann_right",
    )
    nets.close(found(net, X, TARGET), expected, 1e-10)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.5, 5), softmax=st.booleans())
def test_integrated_gradients_add_up_to_the_difference_of_the_score(
    seed: int, beta: float, softmax: bool
) -> None:
    net = smooth(nets.plain(seed=seed).double(), beta=beta, pooling=1.0)
    method = trompe.explainer(
        "integrated_grad", steps=200, score="softmax" if softmax else "logit", chunk=200
    )
    x = 0.6 * nets.images(1, seed=seed)
    total = method(net, x, TARGET[:1]).sum()
    scores = [net(image)[0] for image in (x, torch.zeros_like(x))]
    if softmax:
        scores = [s.softmax(dim=0) for s in scores]
    difference = scores[0][TARGET[0]] - scores[1][TARGET[0]]
    torch.testing.assert_close(total, difference, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("oracle", ["captum", "zennit"])
@each_net
def test_guided_backprop(make: object, oracle: str) -> None:
    """Both hook nn.ReLU modules: the residual net calls functions, where they see nothing."""
    if make is nets.normed:
        net = nets.normed().double()
        gradient = trompe.explainer("gradient")(net, X, TARGET)
        nets.close(captum_of(captum.attr.GuidedBackprop, net), gradient, 1e-12)  # no ReLU module
        assert not torch.allclose(trompe.explainer("guided_backprop")(net, X, TARGET), gradient)
        return
    net = make().double()  # type: ignore[operator]
    if isinstance(net, nets.Forms):
        net = ModuleForms(net)  # captum refuses a module that is used twice
    if oracle == "captum":
        expected = captum_of(captum.attr.GuidedBackprop, net)
    else:
        x, twin = X.clone().requires_grad_(True), copy.deepcopy(net)
        with zennit.composites.GuidedBackprop().context(twin) as modified:
            (expected,) = torch.autograd.grad(modified(x), x, F.one_hot(TARGET, 4).double())
    nets.close(trompe.explainer("guided_backprop")(net, X, TARGET), expected, 1e-10)


class ModuleForms(nn.Module):
    """``nets.Forms`` with one activation module per call."""

    def __init__(self, net: nets.Forms) -> None:
        super().__init__()
        self.net = net
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(self.relus[0](self.net.stem(x)), 2)
        first = self.relus[1](self.net.body(h) + h)
        second = self.relus[2](self.net.body(first))
        return self.net.head(torch.cat([first, second], dim=1).flatten(1))


def test_smoothgrad_is_the_mean_over_the_seeded_noise() -> None:
    net = nets.plain().double()
    found = trompe.explainer("smoothgrad", samples=4, noise=0.2, seed=3)(net, X, TARGET)
    draws = torch.randn(
        4, 1, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    total = torch.zeros_like(X)
    for draw in draws:
        for i in range(2):
            spread = X[i].max() - X[i].min()
            noisy = X[i : i + 1] + 0.2 * spread * draw
            total[i] += trompe.explainer("gradient")(net, noisy, TARGET[i : i + 1])[0] / 4
    nets.close(found, total, 1e-12)
    assert not torch.allclose(found, trompe.explainer("smoothgrad", samples=4)(net, X, TARGET))


def test_smoothgrad_without_noise_is_the_method_itself() -> None:
    net, base = nets.plain().double(), trompe.explainer("lrp")
    found = trompe.explainer("smoothgrad", base=base, samples=2, noise=0.0)(net, X, TARGET)
    nets.close(found, base(net, X, TARGET), 1e-12)


@pytest.mark.parametrize("base", ["gradient", "lrp", "guided_backprop"])
def test_beta_smoothing_explains_the_smoothed_and_decides_with_the_original(base: str) -> None:
    net, method = nets.plain().double(), trompe.explainer(base)
    found, logits = trompe.explainer("beta_smoothing", base=method, beta=2.0, pooling=1.0).explain(
        net, X, TARGET
    )
    nets.close(found, method(smooth(net, beta=2.0, pooling=1.0), X, TARGET), 1e-12)
    nets.close(logits, net(X), 1e-14)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("integrated_grad", {"steps": 0}, "steps"),
        ("integrated_grad", {"chunk": 0}, "chunk"),
        ("integrated_grad", {"score": "probability"}, "unknown score 'probability'"),
        ("smoothgrad", {"samples": 0}, "samples"),
        ("smoothgrad", {"noise": -0.1}, "noise"),
        ("beta_smoothing", {"beta": 0.0}, "beta"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        trompe.explainer(name, **options)


def test_heat_maps() -> None:
    relevance = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]], [[[0.0, 0.5]], [[0.0, -0.5]]]])
    expected = torch.tensor([[[4 / 6, 2 / 6]], [[0.0, 1.0]]])
    torch.testing.assert_close(trompe.heatmap(relevance), expected)
    torch.testing.assert_close(trompe.heatmap(torch.tensor([[1.0, -3.0]]))[0, 1].item(), 0.75)
    for bad, complaint in ((0.0, "image 1 is all zero"), (torch.nan, "image 1 is not finite")):
        broken = relevance.clone()
        broken[1] = bad
        with pytest.raises(trompe.TrompeError, match=complaint):
            trompe.heatmap(broken)
