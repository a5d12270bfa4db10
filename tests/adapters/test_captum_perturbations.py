"""captum's explanations without gradients: values, derivatives, draws, attacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import adapter_cases as cases
import nets
import numpy as np
import pytest
import scipy.optimize
import torch
from adapter_cases import TARGET, X
from torch import Tensor, nn

import trompe
from trompe.adapters.captum_perturbations import LinearModel
from trompe.engine import smooth

attr = pytest.importorskip("captum.attr")

LABELS = torch.tensor([[0] * 3 + [1] * 5] * 4 + [[2] * 6 + [3] * 2] * 4).view(1, 1, 8, 8)
WINDOWS: dict[str, Any] = {"sliding_window_shapes": (3, 3, 3), "strides": (3, 2, 2)}
EACH: dict[str, dict[str, Any]] = {
    "Occlusion": WINDOWS,
    "FeatureAblation": {"feature_mask": LABELS},
    "Lime": {"feature_mask": LABELS, "n_samples": 12},
    "KernelShap": {"feature_mask": LABELS, "n_samples": 12},
    "ShapleyValueSampling": {"feature_mask": LABELS, "n_samples": 2},
}
each = pytest.mark.parametrize("name", EACH)


def make(name: str) -> Any:
    return trompe.adapters.captum(name, **EACH[name])


@pytest.mark.parametrize("name", ["Occlusion", "FeatureAblation"])
def test_same_map_as_captums_own(name: str) -> None:
    model = nets.plain().double()
    expected = getattr(attr, name)(model).attribute(X, target=TARGET, **EACH[name])
    nets.close(make(name)(model, X, TARGET), expected, 1e-6)
    if name == "Occlusion":
        ours = trompe.explainer("occlusion", window=3, stride=2)
        nets.close(make(name)(model, X, TARGET), 3 * ours(model, X, TARGET), 1e-9)


@pytest.mark.parametrize("name", ["Lime", "KernelShap"])
def test_same_map_as_captums_own_with_the_same_draws(name: str) -> None:
    """captum's scikit-learn, which need not be installed, is replaced on both sides."""
    model = nets.plain().double()
    found = make(name)(model, X, TARGET)
    theirs = getattr(attr, name)(model)
    theirs.interpretable_model = LinearModel(lasso=0.01 if name == "Lime" else 0.0)
    for i in range(2):
        torch.manual_seed(0)
        expected = theirs.attribute(X[i : i + 1], target=int(TARGET[i]), **EACH[name])
        nets.close(found[i : i + 1], expected.double(), 1e-5)


def test_shapley_values_are_exact() -> None:
    model = nets.plain().double()
    found = trompe.adapters.captum("ShapleyValues", feature_mask=LABELS)(model, X, TARGET)
    ours = trompe.explainer("kernel_shap", segments=LABELS[0, 0])
    nets.close(found, 3 * ours(model, X, TARGET), 1e-9)


@pytest.mark.parametrize("name", ["KernelShap", "ShapleyValueSampling"])
def test_draws_add_up_to_the_difference(name: str) -> None:
    model = nets.plain().double()
    found = make(name)(model, X, TARGET)
    rows = torch.arange(2)
    total = (model(X) - model(torch.zeros_like(X)))[rows, TARGET]
    once = [[found[i, 0][LABELS[0, 0] == j][0] for j in range(4)] for i in range(2)]
    nets.close(torch.tensor(once).sum(dim=1).double(), total, 1e-5)


@each
@pytest.mark.parametrize("smoothed", [False, True])
def test_slope_against_finite_differences(name: str, smoothed: bool) -> None:
    model: nn.Module = nets.plain().double()
    if smoothed:
        model = smooth(model, beta=2.0, pooling=1.0)
    along = cases.direction(X)
    exact = float((cases.slope(make(name), model, X) * along).sum())
    difference = cases.difference(make(name), model, X, along)
    # A step across a kink of a network with kinks moves the difference, not by much.
    assert exact == pytest.approx(difference, rel=1e-6 if smoothed else 1e-2)
    assert abs(exact) > 1e-9


@each
def test_batches_draws_and_the_callers_random_numbers(name: str) -> None:
    model = nets.plain().double()
    unchanged = cases.snapshot(model)
    method = make(name)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    together = method(model, X, TARGET)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    nets.close(together[1:], method(model, X[1:], TARGET[1:]), 1e-9)
    assert not together.requires_grad
    other = method.redrawn(5)
    if name in ("Occlusion", "FeatureAblation"):
        assert other is method
    else:
        assert not torch.allclose(other(model, X, TARGET), together, rtol=1e-3)
        assert other._checked is method._checked  # the derivative is that of the same code
        assert torch.equal(other.redrawn(0)(model, X, TARGET), together)
    unchanged()


@pytest.mark.parametrize("name", ["Occlusion", "KernelShap", "Lime"])
def test_an_attack_on_a_network_with_kinks_moves_the_map(name: str) -> None:
    fine = {} if name == "Occlusion" else {"feature_mask": torch.arange(64).view(1, 1, 8, 8) // 2}
    method = trompe.adapters.captum(name, **{**EACH[name], **fine})
    before, after = cases.attacked(method, nets.plain(), beta_growth=None)
    assert after > before + 0.1


def test_an_attribution_made_by_a_function() -> None:
    model = nets.plain().double()
    ridge = trompe.adapters.captum(
        lambda m: attr.Lime(m, interpretable_model=Ridge()), **EACH["Lime"]
    )
    assert ridge(model, X, TARGET).shape == X.shape
    assert not torch.allclose(ridge.redrawn(1)(model, X, TARGET), ridge(model, X, TARGET))


class Ridge(LinearModel):
    """A user's own differentiable regression is left as it is."""

    def __init__(self) -> None:
        super().__init__(ridge=0.1)


def fitted(model: LinearModel, z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    from torch.utils.data import DataLoader, TensorDataset

    model.fit(DataLoader(TensorDataset(z, y, w), batch_size=4))
    return model.representation()[0]


def data(samples: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    z = (torch.rand(samples, features, generator=generator) < 0.5).double()
    y = torch.randn(samples, generator=generator, dtype=torch.float64)
    return z, y, torch.rand(samples, generator=generator, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_least_squares(ridge: float) -> None:
    z, y, w = data(30, 6)

    def cost(values: np.ndarray) -> float:
        left = y.numpy() - z.numpy() @ values[:-1] - values[-1]
        return float((w.numpy() * left**2).sum() + ridge * (values[:-1] ** 2).sum())

    expected = scipy.optimize.minimize(cost, np.zeros(7), tol=1e-14).x[:-1]
    found = fitted(LinearModel(ridge=ridge), z, y, w)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("samples", "features"), [(40, 6), (12, 30)])
def test_lasso_meets_its_conditions_and_has_its_derivative(samples: int, features: int) -> None:
    """The subgradient conditions are those of a minimum, which is unique here."""
    z, y, w = data(samples, features)
    alpha = 0.05
    make: Callable[[], LinearModel] = lambda: LinearModel(lasso=alpha)  # noqa: E731
    y.requires_grad_(True)
    found = fitted(make(), z, y, w)
    with torch.no_grad():
        weights = w * samples / w.sum()
        share = weights / weights.sum()
        left = (y - share @ y) - (z - share @ z) @ found
        slope = (z - share @ z).t() @ (weights * left) / samples
        active = found != 0
        assert 0 < int(active.sum()) < features
        torch.testing.assert_close(slope[active], alpha * found[active].sign(), atol=1e-7, rtol=0)
        assert float(slope[~active].abs().max()) <= alpha + 1e-7
    weight = torch.arange(features).double()
    (grad,) = torch.autograd.grad((found * weight).sum(), y)
    along = torch.randn(samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ahead, behind = (fitted(make(), z, y.detach() + s * 1e-6 * along, w) for s in (1, -1))
    expected = float(((ahead - behind) * weight).sum()) / 2e-6
    assert float(grad @ along) == pytest.approx(expected, rel=1e-5)


def test_which_regressions_are_known() -> None:
    class SkLearnLasso:
        construct_kwargs: dict[str, Any]

    one = SkLearnLasso()
    one.construct_kwargs = {"alpha": 0.3}
    known = LinearModel.like(one)
    assert known is not None
    assert (known.lasso, known.ridge) == (0.3, 0.0)
    one.construct_kwargs = {"alpha": 0.3, "positive": True}
    assert LinearModel.like(one) is None
    assert LinearModel.like(nn.Linear(2, 2)) is None
