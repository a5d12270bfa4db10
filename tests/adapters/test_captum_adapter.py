"""captum's attributions through the adapter: values, derivatives, attacks, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import adapter_cases as cases
import nets
import pytest
import torch
from adapter_cases import TARGET, X
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.errors import ExplanationError, UsageError

attr = pytest.importorskip("captum.attr")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting .*hooks")
        yield


def grad_cam(model: nn.Module) -> Any:
    return attr.LayerGradCam(model, model[3])


STEPS = {"n_steps": 8, "method": "riemann_right"}
# The adapted attribution, and the options of trompe's own method of the same values.
PAIRS: dict[str, tuple[Callable[[], trompe.Explainer], str, dict[str, Any]]] = {
    "Saliency": (lambda: trompe.adapters.captum(attr.Saliency, abs=False), "gradient", {}),
    "InputXGradient": (
        lambda: trompe.adapters.captum(attr.InputXGradient),
        "grad_times_input",
        {},
    ),
    "IntegratedGradients": (
        lambda: trompe.adapters.captum(attr.IntegratedGradients, **STEPS),
        "integrated_grad",
        {"steps": 8, "score": "logit"},
    ),
    "GuidedBackprop": (lambda: trompe.adapters.captum("GuidedBackprop"), "guided_backprop", {}),
    "Deconvolution": (lambda: trompe.adapters.captum("Deconvolution"), "deconvnet", {}),
    "LayerGradCam": (
        lambda: trompe.adapters.captum(grad_cam),
        "grad_cam",
        {"layer": "3", "positive": False},
    ),
}
each = pytest.mark.parametrize("name", PAIRS)


@each
def test_same_map_as_captum_and_as_our_own(name: str) -> None:
    make, own, options = PAIRS[name]
    model = nets.plain().double()
    found = make()(model, X, TARGET)
    nets.close(found, trompe.explainer(own, **options)(model, X, TARGET), 1e-6)
    if name != "LayerGradCam":  # which captum leaves at the layer's size
        made = getattr(attr, name)(nets.plain().double())
        theirs = {"Saliency": {"abs": False}, "IntegratedGradients": STEPS}.get(name, {})
        expected = made.attribute(X.clone().requires_grad_(True), target=TARGET, **theirs)
        nets.close(found, expected, 1e-12)


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients"])
def test_same_map_and_slope_as_our_own_on_a_smoothed_model(name: str) -> None:
    make, own, options = PAIRS[name]
    model = smooth(nets.plain().double(), beta=2.0, pooling=1.0)
    ours = trompe.explainer(own, **options)
    nets.close(make()(model, X, TARGET), ours(model, X, TARGET), 1e-6)
    nets.close(cases.slope(make(), model, X), cases.slope(ours, model, X), 1e-5)


@each
@pytest.mark.parametrize("net", [nets.plain, lambda: nets.normed()], ids=["plain", "normed"])
def test_slope_against_finite_differences(name: str, net: Callable[[], nn.Module]) -> None:
    model = smooth(net().double(), beta=2.0, pooling=1.0)
    if name == "LayerGradCam" and not isinstance(model.model, nn.Sequential):
        method: Any = trompe.adapters.captum(lambda m: attr.LayerGradCam(m, m.conv2))
    else:
        method = PAIRS[name][0]()
    along = cases.direction(X)
    exact = float((cases.slope(method, model, X) * along).sum())
    assert exact == pytest.approx(cases.difference(method, model, X, along), rel=1e-6)


@pytest.mark.parametrize(
    "name", ["Saliency", "IntegratedGradients", "GuidedBackprop", "LayerGradCam"]
)
def test_an_attack_by_a_surrogate_moves_the_map(name: str) -> None:
    before, after = cases.attacked(
        PAIRS[name][0](), nets.plain(), beta_growth=(3.0, 30.0), pooling=1.0
    )
    assert after > before + 0.05


@pytest.mark.parametrize("name", ["Saliency", "LayerGradCam"])
def test_an_attack_on_a_model_without_kinks_moves_the_map(name: str) -> None:
    model = nets.plain()
    for index in (1, 4, 7):
        model[index] = nn.Softplus(beta=3.0)
    before, after = cases.attacked(PAIRS[name][0](), model, beta_growth=None)
    assert after > before + 0.1


@each
def test_batches_graphs_and_the_model_as_it_was(name: str) -> None:
    model = nets.plain().double()
    fired = cases.with_user_hook(model)
    model[3].requires_grad_(True)
    unchanged = cases.snapshot(model)
    method, x = PAIRS[name][0](), X.clone().requires_grad_(True)
    together = method(model, x, TARGET)
    assert together.requires_grad
    alone = method(model, X[1:], TARGET[1:])
    assert not alone.requires_grad
    nets.close(together[1:], alone, 1e-10)
    with torch.no_grad():
        assert not method(model, x, TARGET).requires_grad
    cases.slope(method, smooth(model, beta=2.0), X)
    unchanged()
    assert fired
    assert torch.equal(x, X)
    assert x.grad is None


def test_guided_grad_cam_has_its_derivative() -> None:
    model = smooth(nets.plain().double(), beta=2.0, pooling=1.0)
    method = trompe.adapters.captum(lambda m: attr.GuidedGradCam(m, m[3]))
    along = cases.direction(X)
    exact = float((cases.slope(method, model, X) * along).sum())
    assert exact == pytest.approx(cases.difference(method, model, X, along), rel=1e-6)


class Fake:
    """An attribution of a user's own making."""

    def __init__(self, model: nn.Module, how: str) -> None:
        self.model, self.how = model, how

    def attribute(self, x: Tensor, target: Tensor) -> Any:
        score = self.model(x).gather(1, target.view(-1, 1)).sum()
        (gradient,) = torch.autograd.grad(score, x)
        if self.how == "in part":
            return gradient.detach() * x
        if self.how == "writes":
            self.model[0].weight.mul_(1.001)
        if self.how == "channels":
            return gradient[:, :2]
        if self.how == "fails":
            raise ValueError("no such thing\nsecond line")
        return gradient.detach()


def fake(how: str) -> trompe.Explainer:
    return trompe.adapters.captum(lambda model: Fake(model, how))


NOISE = "another map at every call.*explainer\\('smoothgrad'"
REFUSED: dict[str, tuple[Callable[[], trompe.Explainer], str]] = {
    "DeepLift": (
        lambda: trompe.adapters.captum(attr.DeepLift),
        "captum.DeepLift cannot be attacked: the derivative of its map is wrong .*captum detaches "
        ".*trompe.explainer\\('deeplift'\\)",
    ),
    "LRP": (lambda: trompe.adapters.captum(attr.LRP), "captum.LRP .*trompe.explainer\\('lrp'\\)"),
    "in chunks": (
        lambda: trompe.adapters.captum(attr.IntegratedGradients, internal_batch_size=2),
        "derivative .* is wrong.*internal_batch_size",
    ),
    "NoiseTunnel": (
        lambda: trompe.adapters.captum(lambda m: attr.NoiseTunnel(attr.Saliency(m))),
        f"captum.NoiseTunnel .*{NOISE}",
    ),
    "GradientShap": (
        lambda: trompe.adapters.captum(attr.GradientShap, baselines=torch.zeros(2, 3, 8, 8)),
        "another map at every call.*trompe.explainer\\('expected_gradients'\\)",
    ),
    "detached": (lambda: fake("altogether"), "Fake cannot be attacked: its map is cut off"),
    "detached in part": (lambda: fake("in part"), "derivative of its map is wrong"),
    "writes": (lambda: fake("writes"), "writes to the model's tensors"),
    "fails": (lambda: fake("fails"), "fails on this model \\(no such thing\\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_attacked_is_refused_and_says_why(name: str) -> None:
    make, message = REFUSED[name]
    model = nets.plain()
    unchanged = cases.snapshot(model)
    with pytest.raises(ExplanationError, match=message) as caught:
        trompe.manipulate(model, X.float(), torch.ones(8, 8), explainer=make(), iterations=1)
    assert "\n" not in str(caught.value)
    unchanged()


def test_an_attribution_is_made_anew_for_the_model_explained() -> None:
    model = nets.plain().double()
    made = attr.LayerGradCam(model, model[3])
    remade = trompe.adapters.captum(made)
    nets.close(remade(model, X, TARGET), trompe.adapters.captum(grad_cam)(model, X, TARGET), 1e-12)
    assert made.layer is model[3]
    smoothed = smooth(model, beta=2.0)
    nets.close(
        cases.slope(remade, smoothed, X),
        cases.slope(trompe.adapters.captum(grad_cam), smoothed, X),
        1e-12,
    )
    with pytest.raises(UsageError, match="made of another model"):
        remade(nets.normed().double(), X, TARGET)


def test_what_is_no_attribution() -> None:
    model, make = nets.plain(), trompe.adapters.captum
    with pytest.raises(UsageError, match="made of a function"):
        make(attr.Saliency(lambda x: model(x)))
    with pytest.raises(UsageError, match="'target' is no option"):
        make(attr.Saliency, target=1)
    with pytest.raises(UsageError, match="no class 'Salience'"):
        make("Salience")
    with pytest.raises(UsageError, match="takes a class"):
        make(3)
    with pytest.raises(UsageError, match="lambda model: LayerGradCam"):
        make(attr.LayerGradCam)(model, X.float(), TARGET)
    with pytest.raises(UsageError, match="no method 'attribute'"):
        make(lambda model: model)(model, X.float(), TARGET)
    with pytest.raises(UsageError, match="returns the shape \\(1, 2, 8, 8\\)"):
        fake("channels")(model, X.float(), TARGET)


def test_a_method_like_any_other() -> None:
    """With its logits, a name, and SmoothGrad over it."""
    model, method = nets.plain().double(), trompe.adapters.captum(attr.Saliency, abs=False)
    assert isinstance(method, trompe.Explainer)
    assert method.name == "captum.Saliency"
    nets.close(method.explain(model, X, TARGET).logits, model(X), 1e-12)
    smoothed, net = (
        (
            trompe.explainer("smoothgrad", base=base, samples=3)
            for base in (method, trompe.explainer("gradient"))
        ),
        smooth(model, beta=2.0),
    )
    ours, theirs = (cases.slope(m, net, X) for m in smoothed)
    nets.close(ours, theirs, 1e-10)
