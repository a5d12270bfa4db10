"""captum's explanations without gradients, with the graph that captum switches off.

Occlusion, Lime, KernelShap and ShapleyValueSampling compute outputs of masked copies of the image
under ``torch.no_grad`` and partly in single precision. Nothing in them is against a derivative: the
map is linear in the outputs. Here captum's own code runs with its graph, on fixed random numbers,
and the regressions that it leaves to scikit-learn are solved by ``LinearModel``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWING = ("Lime", "KernelShap", "ShapleyValueSampling")
"""captum's perturbation methods that draw random numbers."""

PERTURBATIONS = ("FeatureAblation", "Occlusion", "ShapleyValues", *DRAWING)
"""captum's methods that take no gradients and can be attacked."""


def perturbs(attribution: Any) -> bool:
    """Whether an attribution is one of ``PERTURBATIONS``, or made of one by inheritance."""
    return any(kind.__name__ in PERTURBATIONS for kind in type(attribution).__mro__)


def perturbed_map(
    attribution: Any, x: Tensor, target: Tensor, options: dict[str, Any], *, keep: bool, seed: int
) -> Any:
    """Captum's map of ``x``, with a graph if it is to be kept.

    Args:
        attribution: of captum, made of the model explained.
        x: images [B, C, H, W], which require grad.
        target: class of each, [B].
        options: of its ``attribute`` method.
        keep: whether a graph is wanted.
        seed: of captum's random numbers, the same for every image.

    Returns:
        What captum returns, [B, C, H, W].
    """
    model = getattr(attribution, "interpretable_model", None)
    if model is not None:
        attribution.interpretable_model = LinearModel.like(model) or model
        attribution.similarity_func = _kernel(attribution.similarity_func)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _WithGraph(keep, x.dtype):
        if model is None:
            torch.manual_seed(seed)
            return attribution.attribute(x, target=target, **options)
        maps = []
        for image, one in zip(x.split(1), target.split(1), strict=True):
            torch.manual_seed(seed)  # captum would give each image draws of its own
            found = attribution.attribute(
                image, target=one, **{**options, "return_input_shape": False}
            )
            maps.append(_spread(found, options.get("feature_mask"), image))
        return torch.cat(maps)


def _spread(coefficients: Tensor, labels: Tensor | None, image: Tensor) -> Tensor:
    """The coefficient of each segment at its pixels; captum does it through Python numbers.

    Args:
        coefficients: [1, F].
        labels: the segments, broadcast to the image; by default every entry is one of its own.
        image: [1, C, H, W].
    """
    if labels is None:
        return coefficients.view(image.shape)
    labels = (labels - labels.min()).to(image.device).expand_as(image)
    return coefficients[0].index_select(0, labels.flatten()).view(image.shape)


class _WithGraph(TorchFunctionMode):
    """``torch.no_grad`` does nothing while a graph is kept, and double precision stays double."""

    def __init__(self, keep: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.keep = keep
        self.double = dtype == torch.float64

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._set_grad_enabled and self.keep:
            args = (True,)
        if self.double:
            if func is Tensor.float and args[0].dtype == torch.float64:
                return args[0]
            if func is torch.zeros and kwargs.get("dtype") is torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


def _kernel(similarity: Any) -> Any:
    """Lime's own weight of a sample, which captum makes a number, as a tensor with its graph.

    ``exp(-d^2 / (2 width^2))``, d the cosine or Euclidean distance of the masked image from the
    image: it depends on the image.
    """
    if getattr(similarity, "__name__", "") != "default_exp_kernel":
        return similarity  # a user's own, or KernelShap's, which is constant
    settings = inspect.getclosurevars(similarity).nonlocals
    width = settings["kernel_width"]

    def kernel(original: Tensor, masked: Tensor, _: Any, **__: Any) -> Tensor:
        one, other = original.flatten(), masked.flatten()
        if settings["distance_mode"] == "cosine":
            distance = 1 - torch.nn.functional.cosine_similarity(one, other, dim=0)
        else:
            distance = (one - other).square().sum().clamp_min(1e-300).sqrt()
        return torch.exp(-distance.square() / (2 * width**2))

    return kernel


class LinearModel:
    """The weighted linear regressions of captum's ``Lime`` and ``KernelShap``, differentiable.

    Least squares with an intercept, as scikit-learn's ``LinearRegression`` (the solution of least
    norm where there are several), ``Ridge`` and ``Lasso`` with weights of the samples. The Lasso's
    coefficients are differentiated with the set of those that are not zero held fixed.

    Args:
        lasso: penalty of the sum of absolute coefficients, as a share of the mean squared error's.
        ridge: penalty of the sum of squared coefficients.
    """

    _STEPS = 1000

    def __init__(self, lasso: float = 0.0, ridge: float = 0.0) -> None:
        self.lasso = lasso
        self.ridge = ridge
        self._found: Tensor | None = None

    @classmethod
    def like(cls, model: Any) -> LinearModel | None:
        """The same regression as one of captum's wrappers of scikit-learn; ``None`` if unknown."""
        settings = getattr(model, "construct_kwargs", {})
        alpha = settings.get("alpha", 1.0)
        kinds = {
            "SkLearnLasso": {"lasso": alpha},
            "SkLearnRidge": {"ridge": alpha},
            "SkLearnLinearRegression": {},
        }
        if type(model).__name__ not in kinds or settings.keys() - {"alpha"}:
            return None
        return cls(**kinds[type(model).__name__])

    def fit(self, train_data: Any, **_: Any) -> dict[str, float]:
        """Fit to the batches (samples [M, F], scores [M], weights [M]) of a data loader."""
        batches = [tuple(part.double() for part in batch) for batch in train_data]
        samples, scores, weights = (torch.cat([batch[i] for batch in batches]) for i in range(3))
        # The mean of the weights is 1, as scikit-learn has it in the Lasso; else it has no effect.
        scale = len(weights) / weights.sum() if self.lasso else 1.0
        weights = weights * scale
        share = weights / weights.sum()
        root = weights.sqrt()
        design = root.unsqueeze(1) * (samples - share @ samples)
        aim = root * (scores - share @ scores)
        self._found = self._lasso(design, aim) if self.lasso else self._least_squares(design, aim)
        self._found = self._found.to(train_data.dataset[0][1].dtype)
        return {}

    def representation(self) -> Tensor:
        """The coefficients, [1, F]."""
        assert self._found is not None
        return self._found.unsqueeze(0)

    def __call__(self, x: Tensor) -> Tensor:
        """Not needed by captum, which reads ``representation``."""
        return x @ self.representation().t()

    def _least_squares(self, design: Tensor, aim: Tensor) -> Tensor:
        if not self.ridge:
            return torch.linalg.pinv(design) @ aim
        penalty = self.ridge * torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
        return torch.linalg.solve(design.t() @ design + penalty, design.t() @ aim)

    def _lasso(self, design: Tensor, aim: Tensor) -> Tensor:
        """``min |design b - aim|^2 / (2 M) + lasso |b|_1``."""
        active, signs = self._support(design.detach(), aim.detach())
        return self._on(design, aim, active, signs)

    def _on(self, design: Tensor, aim: Tensor, active: Tensor, signs: Tensor) -> Tensor:
        """The minimum where only the coefficients ``active`` differ from 0, with these signs."""
        columns = design[:, active]
        right = columns.t() @ aim - len(aim) * self.lasso * signs[active]
        values = torch.linalg.pinv(columns.t() @ columns, hermitian=True) @ right
        return torch.zeros_like(design[0]).index_put((active,), values)

    @torch.no_grad()
    def _support(self, design: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """Which coefficients are not zero, as indices, and the signs of all.

        The active set of a nearby solution is corrected until the conditions of a minimum hold:
        the slope is ``lasso`` times the sign where a coefficient is not zero, and no larger where
        it is.
        """
        signs = self._nearby(design, aim).sign()
        for _ in range(4 * len(aim)):
            active = signs.nonzero().flatten()
            found = self._on(design, aim, active, signs)
            crossed = found * signs
            if bool((crossed[active] < 0).any()):
                signs[crossed.argmin()] = 0.0
                continue
            slope = design.t() @ (aim - design @ found) / len(aim)
            excess = torch.where(signs == 0, slope.abs() - self.lasso, -1.0)
            worst = excess.argmax()
            if not bool(excess[worst] > 1e-9 * self.lasso):
                break
            signs[worst] = slope[worst].sign()
        return signs.nonzero().flatten(), signs

    def _nearby(self, design: Tensor, aim: Tensor) -> Tensor:
        """Coefficients close to the minimum, by FISTA with restarts (Beck and Teboulle 2009)."""
        step = len(aim) / torch.linalg.matrix_norm(design, 2).square().clamp_min(1e-300)
        found = ahead = torch.zeros_like(design[0])
        momentum = 1.0
        for _ in range(self._STEPS):
            moved = ahead - step * (design.t() @ (design @ ahead - aim)) / len(aim)
            nearer = moved.sign() * (moved.abs() - step * self.lasso).clamp_min(0)
            if bool((ahead - nearer).dot(nearer - found) > 0):  # it overshot
                momentum = 1.0
            grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = nearer + (momentum - 1) / grown * (nearer - found)
            still = bool((nearer - found).abs().max() <= 1e-9 * nearer.abs().max())
            found, momentum = nearer, grown
            if still:
                break
        return found
