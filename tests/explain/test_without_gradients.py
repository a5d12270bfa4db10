"""Occlusion, RISE, LIME and KernelSHAP against captum, plain loops and exact Shapley values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.engine.coalitions import closeness, shapley_coalitions
from trompe.errors import UsageError
from trompe.explain import Method
from trompe.explain.rise import random_masks

X = 0.6 * nets.images()
TARGET = torch.tensor([2, 1])
LABELS = torch.tensor([[0] * 3 + [1] * 5] * 4 + [[2] * 6 + [3] * 2] * 4)
COALITIONS = torch.tensor(
    [[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1.0]]
)


class LeastSquares:
    """A weighted linear regression with an intercept, for captum's ``Lime``: no ridge, no Lasso."""

    def __init__(self, ridge: float = 0.0) -> None:
        self.ridge = ridge

    def fit(self, data: Any, **_: Any) -> dict[str, float]:
        z, y, w = (t.double() for t in next(iter(data)))
        design = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], dim=1)
        penalty = self.ridge * torch.eye(design.shape[1], dtype=z.dtype)
        penalty[-1, -1] = 0
        root = w.sqrt().unsqueeze(1)
        stacked = torch.cat([root * design, penalty.sqrt()])
        aim = torch.cat([root.squeeze(1) * y, torch.zeros(len(penalty), dtype=z.dtype)])
        self.found = torch.linalg.lstsq(stacked, aim.unsqueeze(1), driver="gelsd").solution[:-1, 0]
        return {}

    def representation(self) -> Tensor:
        return self.found.unsqueeze(0)


def given(rows: Tensor) -> Any:
    """A captum perturbation function that returns these coalitions one after the other."""

    def perturb(*_: Any, **__: Any) -> Iterator[Tensor]:
        for row in itertools.cycle(rows):
            yield row.unsqueeze(0).long()

    return perturb


def score(model: nn.Module, image: Tensor, mask: Tensor, target: int) -> float:
    return float(model((image * mask).unsqueeze(0))[0, target])


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), ((4, 3), (3, 1)), (8, 1)])
def test_occlusion_is_captums(window: Any, stride: Any) -> None:
    attr = pytest.importorskip("captum.attr")
    model = nets.plain().double()
    height, width = window if isinstance(window, tuple) else (window, window)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    expected = attr.Occlusion(model).attribute(
        X,
        sliding_window_shapes=(3, height, width),
        strides=(3, down, right),
        baselines=0.2,
        target=TARGET,
    )
    found = trompe.explainer("occlusion", window=window, stride=stride, baseline=0.2)
    nets.close(3 * found(model, X, TARGET), expected, 1e-6)  # captum's is float32


def test_lime_is_captums_with_equal_coalitions() -> None:
    attr = pytest.importorskip("captum.attr")
    model = nets.plain().double()
    lime = attr.LimeBase(
        model,
        LeastSquares(ridge=0.3),
        similarity_func=lambda _, __, z, **___: closeness(z.double(), 0.25),
        perturb_func=given(COALITIONS),
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda z, x, **_: x * z[0][LABELS].to(x.dtype),
        to_interp_rep_transform=None,
    )
    found = trompe.explainer("lime", segments=LABELS, coalitions=COALITIONS, ridge=0.3)
    ours = found(model, X, TARGET)
    for i in range(2):
        coefficients = lime.attribute(
            X[i : i + 1], target=int(TARGET[i]), n_samples=len(COALITIONS)
        )
        nets.close(3 * ours[i, 0], coefficients[0].double()[LABELS], 1e-5)


def test_kernel_shap_is_captums_with_equal_coalitions() -> None:
    attr = pytest.importorskip("captum.attr")
    model = nets.plain().double()
    inner = COALITIONS[1:]
    theirs = attr.KernelShap(model)
    theirs.interpretable_model = LeastSquares()
    ends = torch.tensor([[1.0] * 4, [0.0] * 4])
    theirs.perturb_func = given(torch.cat([ends, inner]))
    found = trompe.explainer("kernel_shap", segments=LABELS, coalitions=inner)
    ours = found(model, X, TARGET)
    for i in range(2):
        expected = theirs.attribute(
            X[i : i + 1],
            target=int(TARGET[i]),
            feature_mask=LABELS.view(1, 1, 8, 8),
            n_samples=2 + len(inner),
        )
        # captum weighs the two ends a million times, ours is the limit.
        nets.close(3 * ours[i], expected[0].double(), 1e-5)


def exact_shapley(model: nn.Module, x: Tensor, target: int, baseline: float) -> Tensor:
    """The defining sum over all orders' prefixes, by subsets."""
    count = x.shape[0]
    values = {}
    for subset in itertools.product((0.0, 1.0), repeat=count):
        kept = torch.tensor(subset, dtype=x.dtype)
        values[subset] = float(model((kept * x + (1 - kept) * baseline).unsqueeze(0))[0, target])
    found = torch.zeros(count, dtype=x.dtype)
    for subset, value in values.items():
        size = int(sum(subset))
        for j in range(count):
            if not subset[j]:
                other = (*subset[:j], 1.0, *subset[j + 1 :])
                share = 1 / (count * math.comb(count - 1, size))
                found[j] += share * (values[other] - value)
    return found


@pytest.mark.parametrize("layers", [1, 2])
def test_kernel_shap_is_exact_on_ten_features(layers: int) -> None:
    linear = nn.Sequential(nn.Linear(10, 3))
    deep = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    model = nets.seeded(linear if layers == 1 else deep, 4).double()
    x = torch.randn(2, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = torch.tensor([0, 2])
    found = trompe.explainer("kernel_shap", samples=1022, baseline=0.3)(model, x, target)
    for i in range(2):
        nets.close(found[i], exact_shapley(model, x[i], int(target[i]), 0.3), 1e-9)
    if layers == 1:  # closed form
        nets.close(found, model[0].weight[target] * (x - 0.3), 1e-9)
        # and already an estimate is exact there
        few = trompe.explainer("kernel_shap", samples=20, baseline=0.3)(model, x, target)
        nets.close(few, found, 1e-9)


@pytest.mark.parametrize("sampler", ["paired", "independent"])
def test_drawn_coalitions_estimate_shapley_values(sampler: Any) -> None:
    deep = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    model = nets.seeded(deep, 4).double()
    x = torch.randn(1, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    exact = trompe.explainer("kernel_shap", samples=1022)(model, x, TARGET[:1])
    errors = []
    for samples in (60, 900):
        tries = [
            trompe.explainer("kernel_shap", samples=samples, sampler=sampler, seed=seed)(
                model, x, TARGET[:1]
            )
            for seed in range(20)
        ]
        for one in tries:  # efficiency, whatever is drawn
            total = model(x)[0, 2] - model(torch.zeros_like(x))[0, 2]
            assert float(one.sum()) == pytest.approx(float(total), rel=1e-9)
        errors.append(float((torch.stack(tries) - exact).square().mean().sqrt()))
    assert errors[1] < 0.45 * errors[0]  # 15 times the draws: a quarter of the error


def test_sizes_of_drawn_coalitions_follow_the_shapley_kernel() -> None:
    drawn, weights = shapley_coalitions(20_000, 30, torch.Generator().manual_seed(0), paired=False)
    sizes = torch.arange(1, 30).double()
    expected = 1 / (sizes * (30 - sizes))
    counts = torch.bincount(drawn.sum(dim=1).long(), minlength=30)[1:].double()
    torch.testing.assert_close(counts / counts.sum(), expected / expected.sum(), atol=0.01, rtol=0)
    torch.testing.assert_close(
        drawn.mean(dim=0), torch.full((30,), 0.5).double(), atol=0.02, rtol=0
    )
    assert bool((weights == 1).all())
    paired, _ = shapley_coalitions(7, 30, torch.Generator().manual_seed(0), paired=True)
    assert paired.shape == (7, 30)
    assert torch.equal(paired[0], 1 - paired[1])
    assert not torch.equal(paired[1], 1 - paired[2])


@pytest.mark.parametrize("centred", [False, True])
def test_rise_is_a_plain_loop(centred: bool) -> None:
    model = nets.plain().double()
    masks = torch.rand(9, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    method = trompe.explainer("rise", masks=masks, probability=0.4, centred=centred)
    found = method(model, X, TARGET)
    for i in range(2):
        scores = [score(model, X[i], mask, int(TARGET[i])) for mask in masks]
        mean = sum(scores) / 9 if centred else 0.0
        picture = sum((s - mean) * mask for s, mask in zip(scores, masks, strict=True)) / (9 * 0.4)
        nets.close(found[i].sum(dim=0), picture, 1e-12)


def test_rise_masks_have_their_mean_size_and_smoothness() -> None:
    masks = random_masks(2000, 7, 0.3, 0, (50, 64), torch.float64, torch.device("cpu"))
    assert masks.shape == (2000, 50, 64)
    assert float(masks.min()) == 0
    assert float(masks.max()) == 1
    assert float(masks.mean()) == pytest.approx(0.3, abs=0.005)
    at_each_pixel = masks.mean(dim=0)
    assert float(at_each_pixel.std()) < 0.02  # no place is kept more often than another
    cell = math.ceil(64 / 7)
    assert float(masks.diff(dim=-1).abs().max()) <= 1 / cell + 1e-9


def test_lime_is_ribeiros_kernel() -> None:
    """The package's distance and kernel, written out with vectors."""
    ones = torch.ones(4, dtype=torch.float64)
    for row, found in zip(COALITIONS.double(), closeness(COALITIONS.double(), 0.25), strict=True):
        cosine = float(row @ ones / (row.norm() * ones.norm()))
        expected = math.sqrt(math.exp(-((1 - cosine) ** 2) / 0.25**2))
        assert float(found) == pytest.approx(expected, rel=1e-12)


METHODS = ["occlusion", "rise", "lime", "kernel_shap"]


def small(name: str, **options: Any) -> Method:
    few = {} if name == "occlusion" else {"samples": 12}
    return trompe.explainer(name, **few, **options)


@pytest.mark.parametrize("name", METHODS)
def test_only_first_derivatives_are_needed(name: str) -> None:
    """A ReLU network as it is has a gradient of the map, by one backward pass, and it is right."""
    model = nets.plain().double()
    method = small(name)
    assert method.first_order
    assert not trompe.explainer("gradient").first_order
    generator = torch.Generator().manual_seed(5)
    direction, weight = torch.randn(2, *X.shape, generator=generator, dtype=torch.float64)
    x = X.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad((method(model, x, TARGET) * weight).sum(), x)
    step = 1e-7
    ahead, behind = (method(model, X + s * step * direction, TARGET) for s in (1, -1))
    expected = ((ahead - behind) * weight).sum() / (2 * step)
    assert float((grad * direction).sum()) == pytest.approx(float(expected), rel=1e-5)
    assert abs(float(expected)) > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_chunks_do_not_change_the_map_or_its_derivative(name: str) -> None:
    model = nets.plain().double()
    seen = []
    for chunk in (2, 7, 1000):
        x = X.clone().requires_grad_(True)
        relevance = small(name, chunk=chunk)(model, x, TARGET)
        (grad,) = torch.autograd.grad(relevance.square().sum(), x)
        seen.append((relevance.detach(), grad))
    for relevance, grad in seen[:2]:
        nets.close(relevance, seen[2][0], 1e-12)
        nets.close(grad, seen[2][1], 1e-12)


@pytest.mark.parametrize("name", ["rise", "lime", "kernel_shap", "smoothgrad"])
def test_redrawn_draws_anew_and_comes_back(name: str) -> None:
    model = nets.plain().double()
    method = small(name)
    other = method.redrawn(7)
    first, second = method(model, X, TARGET), other(model, X, TARGET)
    assert not torch.allclose(first, second, rtol=1e-3)
    assert torch.equal(other.redrawn(0)(model, X, TARGET), first)
    assert type(other) is type(method)


def test_what_draws_nothing_is_redrawn_as_it_is() -> None:
    masks = torch.ones(1, 8, 8)
    for method in (
        trompe.explainer("gradient"),
        trompe.explainer("occlusion"),
        trompe.explainer("rise", masks=masks),
        trompe.explainer("lime", segments=LABELS, coalitions=COALITIONS),
        trompe.explainer("kernel_shap", segments=LABELS, coalitions=COALITIONS[1:]),
    ):
        assert method.redrawn(3) is method
        assert not method.draws
    wrapped = trompe.explainer("beta_smoothing", base=trompe.explainer("rise"))
    assert wrapped.redrawn(3).base.seed == 3
    noisy = trompe.explainer("smoothgrad", base=trompe.explainer("rise")).redrawn(4)
    assert (noisy.seed, noisy.base.seed) == (4, 4)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("occlusion", {"window": 0}, "window must be at least 1"),
    ("occlusion", {"window": ()}, "window must be at least 1"),
    ("occlusion", {"window": 9}, "window of 9 pixels does not fit"),
    ("occlusion", {"window": 2, "stride": 3}, "leaves pixels between windows"),
    ("occlusion", {"score": "odds"}, "unknown score 'odds'"),
    ("rise", {"probability": 1.0}, "probability"),
    ("rise", {"samples": 0}, "samples"),
    ("rise", {"masks": torch.ones(2, 4, 4)}, "masks"),
    ("lime", {"segments": torch.zeros(8, 8)}, "labels, int64"),
    ("lime", {"segments": 2 * LABELS}, "labelled 0"),
    ("lime", {"segments": LABELS, "coalitions": COALITIONS[:, :3]}, r"give \[M, 4\]"),
    ("lime", {"weights": torch.ones(3)}, "give coalitions too"),
    ("lime", {"ridge": -1.0}, "ridge"),
    ("kernel_shap", {"segments": 1}, "at least 2 segments"),
    ("kernel_shap", {"segments": LABELS, "coalitions": COALITIONS}, "nothing or all"),
    ("kernel_shap", {"sampler": "kmeans"}, "unknown sampler"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_what_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        trompe.explainer(name, **options)(nets.plain().double(), X, TARGET)
    assert "\n" not in str(caught.value)
