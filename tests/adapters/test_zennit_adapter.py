"""zennit's composites through the adapter: values, derivatives, attacks, refusals."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import adapter_cases as cases
import nets
import pytest
import torch
from adapter_cases import TARGET, X
from torch import nn

import trompe
from trompe.engine import smooth
from trompe.errors import ExplanationError, UsageError

zennit = pytest.importorskip("zennit")
from zennit import attribution, composites  # noqa: E402
from zennit.torchvision import VGGCanonizer  # noqa: E402


def box() -> Any:
    low, high = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
        for v in (trompe.InputSpace().low, trompe.InputSpace().high)
    )
    return composites.EpsilonGammaBox(low, high)


PAIRS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "EpsilonPlus": (composites.EpsilonPlus, "lrp", {"composite": "epsilon_plus"}),
    "EpsilonPlusFlat": (composites.EpsilonPlusFlat, "lrp", {"composite": "epsilon_plus_flat"}),
    "EpsilonGammaBox": (box, "lrp", {"composite": "epsilon_gamma_box"}),
    "EpsilonAlpha2Beta1": (
        composites.EpsilonAlpha2Beta1,
        "lrp",
        {"composite": "epsilon_alpha2_beta1"},
    ),
    "GuidedBackprop": (composites.GuidedBackprop, "guided_backprop", {}),
    "DeconvNet": (composites.DeconvNet, "deconvnet", {}),
}
each = pytest.mark.parametrize("name", PAIRS)


def adapted(name: str, output: Any = "one") -> Any:
    return trompe.adapters.zennit(PAIRS[name][0](), output=output)


@each
def test_same_map_as_zennit_and_as_our_own(name: str) -> None:
    make, own, options = PAIRS[name]
    model = nets.plain().double()
    output = "score" if own == "lrp" else "one"
    found = adapted(name, output)(model, X, TARGET)
    nets.close(found, trompe.explainer(own, **options)(model, X, TARGET), 1e-5)
    seed = torch.nn.functional.one_hot(TARGET, nets.CLASSES).double()
    with attribution.Gradient(nets.plain().double(), make()) as attribute:
        _, expected = attribute(X.clone(), seed)
    nets.close(adapted(name)(model, X, TARGET), expected, 1e-12)


@each
def test_slope_is_our_own(name: str) -> None:
    """On the ReLU network, where zennit's rules and ours are the same function."""
    _, own, options = PAIRS[name]
    if own != "lrp":
        pytest.skip("its derivative is zero there")
    model = nets.plain().double()
    ours = trompe.explainer(own, **options)
    nets.close(cases.slope(adapted(name), model, X), cases.slope(ours, model, X), 1e-4)


@each
@pytest.mark.parametrize("output", ["one", "score"])
@pytest.mark.parametrize("smoothed", [True, False])
def test_slope_against_finite_differences(name: str, output: str, smoothed: bool) -> None:
    model: nn.Module = nets.plain().double()
    if smoothed:
        model = smooth(model, beta=2.0, pooling=1.0)
    elif PAIRS[name][1] != "lrp":
        pytest.skip("its derivative is zero there")
    method, along = adapted(name, output), cases.direction(X)
    exact = float((cases.slope(method, model, X) * along).sum())
    assert exact == pytest.approx(cases.difference(method, model, X, along), rel=1e-5)


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonGammaBox", "GuidedBackprop"])
def test_an_attack_by_a_surrogate_moves_the_map(name: str) -> None:
    before, after = cases.attacked(
        adapted(name), nets.plain(), beta_growth=(3.0, 30.0), pooling=1.0
    )
    assert after > before + 0.05


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonGammaBox"])
def test_an_attack_on_the_model_itself_moves_the_map(name: str) -> None:
    before, after = cases.attacked(adapted(name), nets.plain(), beta_growth=None)
    assert after > before + 0.1


@each
def test_batches_graphs_and_the_model_as_it_was(name: str) -> None:
    model = nets.plain().double()
    fired = cases.with_user_hook(model)
    model[3].requires_grad_(True)
    unchanged = cases.snapshot(model)
    composite = PAIRS[name][0]()
    method, x = trompe.adapters.zennit(composite), X.clone().requires_grad_(True)
    together = method(model, x, TARGET)
    assert together.requires_grad
    alone = method(model, X[1:], TARGET[1:])
    assert not alone.requires_grad
    nets.close(together[1:], alone, 1e-10)
    cases.slope(method, smooth(model, beta=2.0), X)
    unchanged()
    assert fired
    assert torch.equal(x, X)
    assert not composite.handles
    assert not composite.hook_refs


def batch_normed() -> nn.Sequential:
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(16, nets.CLASSES)),
    )
    nets.seeded(net, 4)
    return net


@pytest.mark.parametrize("smoothed", [True, False])
def test_canonisers_fold_in_a_copy_alone(smoothed: bool) -> None:
    net = batch_normed().double()
    unchanged = cases.snapshot(net)
    model = smooth(net, beta=2.0, pooling=1.0) if smoothed else net
    method = trompe.adapters.zennit(composites.EpsilonPlus(canonizers=[VGGCanonizer()]))
    along = cases.direction(X)
    exact = float((cases.slope(method, model, X) * along).sum())
    assert exact == pytest.approx(cases.difference(method, model, X, along), rel=1e-5)
    nets.close(method.explain(net, X, TARGET).logits, net(X), 1e-12)
    unchanged()
    with composites.EpsilonPlus(canonizers=[VGGCanonizer()]).context(batch_normed().double()) as m:
        x = X.clone().requires_grad_(True)
        seed = torch.nn.functional.one_hot(TARGET, nets.CLASSES).double()
        (expected,) = torch.autograd.grad(m(x), x, seed)
    nets.close(method(net, X, TARGET), expected, 1e-12)


def test_rules_by_the_names_of_layers_find_them_in_a_smoothed_model() -> None:
    composite = composites.NameMapComposite([(["0", "3"], zennit.rules.ZPlus())])
    method = trompe.adapters.zennit(composite)
    model = smooth(nets.plain().double(), beta=2.0)
    gradient = trompe.explainer("gradient")(model, X, TARGET)
    assert not torch.allclose(method(model, X, TARGET), gradient)


def test_an_attributor_with_its_options() -> None:
    model = smooth(nets.plain().double(), beta=2.0, pooling=1.0)
    method = trompe.adapters.zennit(
        composites.EpsilonPlus(), attributor=attribution.IntegratedGradients, n_iter=3
    )
    along = cases.direction(X)
    exact = float((cases.slope(method, model, X) * along).sum())
    assert exact == pytest.approx(cases.difference(method, model, X, along), rel=1e-5)


def refusal(method: Any) -> str:
    model = nets.plain()
    unchanged = cases.snapshot(model)
    with pytest.raises(ExplanationError) as caught:
        trompe.manipulate(model, X.float(), torch.ones(8, 8), explainer=method, iterations=1)
    unchanged()
    return str(caught.value)


class DetachedRule(zennit.core.Hook):
    def backward(self, module: Any, grad_input: Any, grad_output: Any) -> Any:
        return (grad_input[0].detach(),)


def test_what_cannot_be_attacked_is_refused_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = trompe.adapters.zennit("epsilon_plus", attributor=attribution.SmoothGrad, n_iter=2)
    assert "another map at every call" in refusal(noisy)
    rule = composites.NameMapComposite([(["4"], DetachedRule())])
    message = refusal(trompe.adapters.zennit(rule))
    assert "zennit.NameMapComposite cannot be attacked: " in message
    assert "explainer('lrp', composite=...)" in message
    # As they would be without the adapter: hooks that stay for the second derivative.
    monkeypatch.setattr(zennit.core.Hook, "remove", lambda self: KEPT.append(self))
    message = refusal(trompe.adapters.zennit("epsilon_plus"))
    assert "derivative of its map is wrong" in message
    assert "trompe.explainer('lrp', composite='epsilon_plus')" in message


KEPT: list[Any] = []


class ConstantOutput(attribution.Gradient):
    """zennit's rules are cut off from the image where what reaches them needs no gradient."""

    def forward(self, input: Any, attr_output_fn: Any) -> Any:
        return super().forward(input, lambda logits: attr_output_fn(logits).detach())


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonGammaBox"])
def test_a_constant_output_is_seen_by_the_check(name: str) -> None:
    method = trompe.adapters.zennit(PAIRS[name][0](), attributor=ConstantOutput)
    assert "derivative of its map is wrong" in refusal(method)


def test_nothing_is_kept_alive() -> None:
    """zennit's hooks refer to the graph, and the graph to them: memory would leak."""
    model, method = nets.plain(), trompe.adapters.zennit("epsilon_plus")
    x = X.float().requires_grad_(True)
    method(model, x, TARGET)
    gc.collect()
    made: list[Any] = []
    module = nn.ReLU.forward

    def forward(self: Any, input: Any) -> Any:
        out = module(self, input)
        made.append(weakref.ref(out))
        return out

    nn.ReLU.forward = forward  # type: ignore[method-assign]
    try:
        relevance = method(model, x, TARGET)
    finally:
        nn.ReLU.forward = module  # type: ignore[method-assign]
    del relevance
    gc.collect()
    assert made
    assert not any(ref() is not None for ref in made)


def test_what_is_no_composite() -> None:
    make = trompe.adapters.zennit
    assert make(composites.EpsilonPlus).name == make("epsilon_plus").name == "zennit.EpsilonPlus"
    for wrong, message in (
        ("epsilon", "unknown composite 'epsilon': choose from .*epsilon_plus"),
        (composites.EpsilonGammaBox, "EpsilonGammaBox needs arguments"),
        (3, "takes a composite"),
    ):
        with pytest.raises(UsageError, match=message):
            make(wrong)
    with pytest.raises(UsageError, match="unknown output 'two'"):
        make("epsilon_plus", output="two")
    with pytest.raises(UsageError, match="unknown option 'n_iter'"):
        make("epsilon_plus", n_iter=2)
