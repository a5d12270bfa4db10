"""The methods beside the paper's six, against captum, zennit and plain loops."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.errors import PatternError, UnsupportedOp, UsageError
from trompe.rules.patterns import learn_patterns

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from derivatives import slope_error
from families import SMALL, build, images

TARGET = torch.tensor([1, 3])


def plain() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 10), nn.ReLU(), nn.Linear(10, 5)),
    )
    return net.double().eval().requires_grad_(False)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def test_deeplift_is_captums() -> None:
    captum = pytest.importorskip("captum.attr")
    net, x = plain(), images(16)
    net[2] = nn.AvgPool2d(2)  # captum's rule for max pooling does not add up, see below for ours
    ours = trompe.explainer("deeplift", baseline=0.1)(net, x, TARGET)
    baseline = torch.full_like(x, 0.1)
    expected = captum.DeepLift(net).attribute(x.clone(), baseline, target=TARGET)
    close(ours, expected.detach(), 1e-6)


@pytest.mark.parametrize(
    "name", ["vgg", "vgg_bn", "resnet20", "mobilenet_v3", "densenet", "regnet"]
)
def test_deeplift_adds_up_to_the_difference(name: str) -> None:
    net, size = build(SMALL[name])
    x = images(size)
    total = trompe.explainer("deeplift", baseline=0.2)(net, x, TARGET).sum(dim=(1, 2, 3))
    scores, origin = (net(v)[torch.arange(2), TARGET] for v in (x, torch.full_like(x, 0.2)))
    close(total, scores - origin, 1e-6)


def test_deeplift_refuses_what_has_no_slope() -> None:
    net, size = build(SMALL["vit"])
    with pytest.raises(UnsupportedOp, match=r"layer_norm.*encoder"):
        trompe.explainer("deeplift")(net, images(size), TARGET)


def loop(net: nn.Module, x: Tensor, at_relu: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A backward pass layer by layer."""
    values = [x]
    for layer in net:  # type: ignore[attr-defined]
        values.append(layer(values[-1]))
    signal = F.one_hot(TARGET, 5).double()
    for layer, value in zip(reversed(list(net)), reversed(values[:-1]), strict=True):  # type: ignore[call-overload]
        if isinstance(layer, nn.ReLU):
            signal = at_relu(signal, value)
        else:
            point = value.detach().requires_grad_(True)
            (signal,) = torch.autograd.grad(layer(point), point, signal)
    return signal


def test_deconvnet() -> None:
    net, x = plain(), images(16)
    expected = loop(net, x, lambda signal, _: signal.clamp(min=0))
    close(trompe.explainer("deconvnet")(net, x, TARGET), expected)


def test_excitation_backprop_is_zennits() -> None:
    zennit = pytest.importorskip("zennit.composites")
    from zennit.attribution import Gradient

    net, x = plain(), images(16).abs()
    ours = trompe.explainer("excitation_backprop")(net, x, TARGET)
    composite = zennit.ExcitationBackprop(zero_params="bias")
    with Gradient(net.requires_grad_(True), composite) as attribute:
        _, expected = attribute(x.clone(), F.one_hot(TARGET, 5).double())
    close(ours, expected, 1e-5)


def test_pattern_net() -> None:
    net, x = plain(), images(16)
    patterns = {n: p.double() for n, p in learn_patterns(net, [images(16, 16, seed=1)]).items()}
    ours = trompe.explainer("pattern_net", patterns=patterns)(net, x, TARGET)
    signal = plain()
    signal.load_state_dict({**net.state_dict(), **patterns})

    values, weights = [x], list(net)  # type: ignore[call-overload]
    for layer in weights:
        values.append(layer(values[-1]))
    relevance = F.one_hot(TARGET, 5).double()
    for i in reversed(range(len(weights))):
        point = values[i].detach().requires_grad_(True)
        layer = weights[i] if isinstance(weights[i], (nn.ReLU, nn.MaxPool2d)) else signal[i]  # type: ignore[index]
        (relevance,) = torch.autograd.grad(layer(point), point, relevance)
    close(ours, relevance, 1e-6)
    with pytest.raises(PatternError):
        trompe.explainer("pattern_net")(net, x, TARGET)


def score_gradient(net: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(net(x)[torch.arange(2), TARGET].sum(), x)[0]


def test_uniform_gradient() -> None:
    net, x = plain(), images(16)
    ours = trompe.explainer("uniform_gradient", samples=4, radius=0.2, seed=5)(net, x, TARGET)
    draws = torch.rand(
        4, 1, *x.shape[1:], generator=torch.Generator().manual_seed(5), dtype=x.dtype
    )
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    expected = sum(score_gradient(net, x + 0.2 * spread * (2 * draw - 1)) for draw in draws) / 4
    close(ours, expected)


def test_expected_gradients() -> None:
    net, x, origins = plain(), images(16), images(16, 3, seed=8)
    method = trompe.explainer("expected_gradients", baselines=origins, samples=400, chunk=100)
    total = method(net, x, TARGET).sum(dim=(1, 2, 3))
    expected = net(x)[torch.arange(2), TARGET] - net(origins)[:, TARGET].mean(dim=0)
    torch.testing.assert_close(total, expected, rtol=0.2, atol=0.05)
    one = trompe.explainer("expected_gradients", baselines=origins[:1], samples=1, seed=3)
    time = torch.rand(1, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    away = x - origins[:1]
    close(one(net, x, TARGET), away * score_gradient(net, origins[:1] + time * away))
    with pytest.raises(UsageError, match="baselines"):
        trompe.explainer("expected_gradients", baselines=origins[..., :3])(net, x, TARGET)


def test_grad_cam() -> None:
    captum = pytest.importorskip("captum.attr")
    net, x = plain(), images(16)
    expected = captum.LayerGradCam(net, net[4]).attribute(x, TARGET, relu_attributions=True)  # type: ignore[index]
    expected = F.interpolate(expected.detach(), size=(16, 16), mode="bilinear")
    ours = trompe.explainer("grad_cam", layer="4")(net, x, TARGET)
    close(ours.sum(dim=1, keepdim=True), expected)
    default = trompe.explainer("grad_cam")(net, x, TARGET)
    close(default, trompe.explainer("grad_cam", layer="5")(net, x, TARGET))
    for layer in ("nothing", "6"):
        with pytest.raises(UsageError, match=layer):
            trompe.explainer("grad_cam", layer=layer)(net, x, TARGET)
    vectors = nn.Sequential(nn.Linear(4, 5)).double()
    with pytest.raises(UnsupportedOp, match="no feature maps"):
        trompe.explainer("grad_cam")(vectors, torch.ones(2, 4, dtype=x.dtype), TARGET)


def test_relevance_cam() -> None:
    """Relevance of the feature maps equals LRP on the network above them."""
    net, x = plain(), images(16)
    ours = trompe.explainer("grad_cam", layer="4", weights="relevance")(net, x, TARGET)
    features = net[:5](x)  # type: ignore[index]
    relevance = trompe.explainer("lrp", composite="epsilon_plus")(net[5:], features, TARGET)  # type: ignore[index]
    cam = (relevance.sum(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True)
    expected = F.interpolate(cam.clamp(min=0), size=(16, 16), mode="bilinear")
    close(ours.sum(dim=1, keepdim=True), expected)


def test_attention_rollout() -> None:
    net, size = build(SMALL["vit"])
    x = images(size)
    ours = trompe.explainer("attention_rollout")(net, x, TARGET)
    seen: list[Tensor] = []
    layers = list(net.encoder.layers)  # type: ignore[union-attr,arg-type]

    def keep(layer: nn.Module) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            h = layer.ln_1(args[0])  # type: ignore[operator]
            weights = layer.self_attention(h, h, h, average_attn_weights=True)[1]  # type: ignore[operator]
            seen.append(weights)

        return hook

    hooks = [layer.register_forward_hook(keep(layer)) for layer in layers]
    net(x)
    for hook in hooks:
        hook.remove()
    rollout = torch.eye(5, dtype=x.dtype)
    for weights in seen:
        rollout = (0.5 * weights + 0.5 * torch.eye(5, dtype=x.dtype)) @ rollout
    grid = rollout[:, 0, 1:].reshape(2, 1, 2, 2)
    expected = F.interpolate(grid, size=(size, size), mode="bilinear")
    close(ours.sum(dim=1, keepdim=True), expected)
    for i in range(len(x)):
        alone = trompe.explainer("attention_rollout")(net, x[i : i + 1], TARGET[i : i + 1])
        close(ours[i : i + 1], alone)
    with pytest.raises(UnsupportedOp, match="attention"):
        trompe.explainer("attention_rollout")(plain(), images(16), TARGET)


OPTIONS: dict[str, dict[str, Any]] = {
    "deeplift": {"baseline": 0.1},
    "deconvnet": {},
    "excitation_backprop": {},
    "expected_gradients": {"samples": 2},
    "uniform_gradient": {"samples": 2},
    "grad_cam": {"positive": False},
    "relevance_cam": {"weights": "relevance", "positive": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_second_derivatives(name: str) -> None:
    method = trompe.explainer(name.replace("relevance_", "grad_"), **OPTIONS[name])
    smoothed = trompe.smooth(plain(), beta=5.0, pooling=True)
    assert slope_error(method, smoothed, images(16, 1), TARGET[:1]) < 1e-5


def test_second_derivative_of_pattern_net_and_rollout() -> None:
    net = plain()
    patterns = {n: p.double() for n, p in learn_patterns(net, [images(16, 16, seed=1)]).items()}
    method = trompe.explainer("pattern_net", patterns=patterns)
    smoothed = trompe.smooth(net, beta=5.0, pooling=True)
    assert slope_error(method, smoothed, images(16, 1), TARGET[:1]) < 1e-5
    vit, size = build(SMALL["vit"])
    method = trompe.explainer("attention_rollout")
    assert slope_error(method, vit, images(size, 1), TARGET[:1]) < 1e-5


def test_the_mean_of_methods_has_the_mean_of_their_heat_maps() -> None:
    net, x = plain(), torch.randn(2, 3, 16, 16).double()
    names = ("gradient", "lrp", "guided_backprop")
    methods = tuple(trompe.explainer(name) for name in names)
    found = trompe.heatmap(trompe.explainer("mean_of", methods=methods)(net, x, TARGET))
    slow = sum(trompe.heatmap(method(net, x, TARGET)) for method in methods)
    close(found, torch.as_tensor(slow) / 3)
    with pytest.raises(UsageError, match="one or more methods"):
        trompe.explainer("mean_of", methods=())


def test_the_median_over_noisy_copies_is_numpys() -> None:
    np = pytest.importorskip("numpy")
    net, x = plain(), torch.randn(2, 3, 16, 16).double()
    gradient = trompe.explainer("gradient")
    draw = torch.Generator().manual_seed(4)
    noise = torch.randn(5, 1, 3, 16, 16, generator=draw, dtype=torch.float64)
    maps = [gradient(net, x + 0.3 * e, TARGET).abs() for e in noise]
    shares = np.stack([(m / m.sum((1, 2, 3), keepdim=True)).numpy() for m in maps])
    method = trompe.explainer("median_smooth", samples=5, noise=0.3, seed=4)
    close(method(net, x, TARGET), torch.from_numpy(np.median(shares, axis=0)))
    with pytest.raises(UsageError, match="odd"):
        trompe.explainer("median_smooth", samples=4)
    redrawn = method.redrawn(5)
    assert not torch.equal(redrawn(net, x, TARGET), method(net, x, TARGET))


@pytest.mark.parametrize("name", ["mean_of", "median_smooth"])
def test_wrappers_are_attacked_like_any_method(name: str) -> None:
    net = plain().float()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    space = trompe.InputSpace((0.0,) * 3, (1.0,) * 3)
    found = trompe.auto_attack(net, x, explainer=name, radius=0.1, budget=0.1, input_space=space)
    assert float(found.worst["pcc"]) < 0.99
