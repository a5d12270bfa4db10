"""Max-Sensitivity and Local Lipschitz of Quantus with an attack in place of random noise alone.

Quantus is not imported before a metric is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.attacks import LInfBall, Objective, manipulate
from trompe.attacks.constraints import Ball
from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.explain.base import Method
from trompe.explain.quantus_call import for_quantus
from trompe.interruption import whole
from trompe.per_image import per_image
from trompe.types import Explainer, InputSpace

_START = 0.1  # of the radius: the gradient of a distance is not defined where it is 0


@dataclass(frozen=True)
class _Moved(Objective):
    """How far the signed map moves, relative to its size or to the change of the image."""

    per_change: bool
    noise: Tensor | None = None

    def start(self, reference: Observation) -> Tensor | None:
        return None if self.noise is None else reference.x + self.noise

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        moved = (now.relevance - reference.relevance).flatten(1)
        by = (now.x - reference.x if self.per_change else reference.relevance).flatten(1)
        return -_length(moved) / _length(by)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        return {"moved": -self(now, reference)}


def _length(rows: Tensor) -> Tensor:
    return (rows.square().sum(dim=1) + torch.finfo(rows.dtype).tiny).sqrt()


def explain_func(
    explainer: str | Explainer, *, input_space: InputSpace | None = None
) -> Callable[..., Any]:
    """Any explainer as Quantus calls one; trompe's own methods are called so as they are.

    Args:
        explainer: a name or an object.
        input_space: the model's normalisation; ImageNet's if not given.

    Returns:
        A function of ``model``, ``inputs`` [B, C, H, W] and ``targets`` [B] that gives signed maps
        as a NumPy array [B, C, H, W].
    """
    space = input_space or InputSpace()
    method = as_explainer(explainer, space)
    if isinstance(method, Method):
        return method.within(space)

    def explain(model: Any, inputs: Any, targets: Any, **others: Any) -> Any:
        return for_quantus(method, model, None, None, inputs, targets, others)

    return explain


def max_sensitivity(explainer: str | Explainer, **options: Any) -> Any:
    """Quantus' Max-Sensitivity (Yeh et al. 2019), its maximum looked for by an attack as well.

    Args:
        explainer: the method that is attacked; give Quantus ``explain_func`` of the same.
        options: see ``local_lipschitz``.

    Returns:
        A metric of Quantus, to be called as any other.
    """
    return _metric("MaxSensitivity", explainer, per_change=False, **options)


def local_lipschitz(explainer: str | Explainer, **options: Any) -> Any:
    """Quantus' Local Lipschitz Estimate (Alvarez-Melis and Jaakkola 2018), attacked as well.

    Every value is that of Quantus' own formula at an image of the ball, the largest of
    ``nr_samples`` random ones and one that an attack found. Where the prediction changes an image
    does not count; where it changes at all of them the value is NaN.

    Args:
        explainer: the method that is attacked; give Quantus ``explain_func`` of the same.
        options: ``constraint``: the ball, ``LInfBall(8 / 255)`` if not given; ``iterations`` of the
            attack, 50; ``input_space``: the model's normalisation; ``seed`` of the random images;
            all others go to Quantus' metric.

    Returns:
        A metric of Quantus. After a call, its ``inputs`` holds the image of each value, a NumPy
        array [B, C, H, W] per batch.

    Raises:
        UsageError: if Quantus is not installed.
    """
    return _metric("LocalLipschitzEstimate", explainer, per_change=True, **options)


def _metric(
    name: str,
    explainer: str | Explainer,
    *,
    per_change: bool,
    constraint: Ball | None = None,
    iterations: int = 50,
    input_space: InputSpace | None = None,
    seed: int = 0,
    nr_samples: int = 10,
    **options: Any,
) -> Any:
    try:
        quantus = importlib.import_module("quantus")
    except ImportError as error:
        raise UsageError("quantus is not installed: pip install quantus") from error
    ball = LInfBall(8 / 255) if constraint is None else constraint
    space = input_space or InputSpace()
    base: Any = getattr(quantus, name)

    class WorstCase(base):  # type: ignore[misc]  # known when it runs
        """The metric, whose perturbed images are given one by one."""

        inputs: list[Any]

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.inputs = []
            return super().__call__(*args, **kwargs)

        def evaluate_batch(
            self, model: Any, x_batch: Any, y_batch: Any, a_batch: Any, **kwargs: Any
        ) -> Any:
            x = torch.as_tensor(x_batch)
            net = model.get_model()
            place = next(net.parameters())
            x = x.to(place)
            draw = torch.Generator().manual_seed(seed)
            images = [ball.start(x, space, draw) for _ in range(nr_samples)]
            objective = _Moved(per_change, _START * (ball.start(x, space, draw) - x))
            found = whole(
                manipulate(
                    net,
                    x,
                    explainer=explainer,
                    objective=objective,
                    constraint=ball,
                    keep_output="class",
                    target=torch.as_tensor(y_batch),
                    input_space=space,
                    iterations=iterations,
                )
            )
            images.append(found.x_adv.to(place))
            best = torch.full((len(x),), torch.nan, dtype=torch.float64)
            worst = x.clone()
            for one in images:
                value = self._value(model, x_batch, y_batch, a_batch, one.cpu().numpy())
                moved = (one != x).flatten(1).any(dim=1).cpu()
                better = moved & ~value.isnan() & ~(value <= best)
                best = torch.where(better, value, best)
                worst = torch.where(per_image(better.to(place.device), worst), one, worst)
            self.inputs.append(worst.cpu().numpy())
            return best.numpy()

        def _value(self, model: Any, x: Any, y: Any, a: Any, images: Any) -> Tensor:
            """Quantus' own formula at given images."""
            self.perturb_func = lambda arr, **ignored: images.reshape(arr.shape)
            values = super().evaluate_batch(model=model, x_batch=x, y_batch=y, a_batch=a)
            return torch.as_tensor(values, dtype=torch.float64)

    options = {"disable_warnings": True, "normalise": False, **options}
    return WorstCase(nr_samples=1, return_nan_when_prediction_changes=True, **options)
