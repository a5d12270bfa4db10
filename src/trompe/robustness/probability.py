"""The probability that a random change of an image misleads its explanation."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from trompe.engine import adapted, frozen
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.metrics import pcc
from trompe.robustness.likeness import comparable
from trompe.robustness.subset_simulation import Probability, monte_carlo, subset_simulation
from trompe.types import Explainer, InputSpace, heatmap

CHANGES = {
    "gaussian": "independent normal noise of that standard deviation in every pixel",
    "l2": "a change of that Euclidean norm, in an evenly drawn direction",
    "linf": "independent noise drawn evenly from minus to plus that size in every pixel",
}
"""Kinds of random change, and what their size means (pixel units, 0..1)."""


def misleading_probability(
    model: Any,
    x: Any,
    *,
    explainer: str | Explainer,
    size: float,
    tau: float = 0.5,
    change: Literal["gaussian", "l2", "linf"] = "gaussian",
    method: Literal["subset", "monte-carlo"] = "subset",
    samples: int = 200,
    runs: int = 5,
    target: Any = None,
    input_space: InputSpace | None = None,
    batch_size: int = 32,
    generator: torch.Generator | None = None,
) -> list[Probability]:
    """How likely a random change of each image moves its map below a correlation of ``tau``.

    The map is the heat map of the class explained, changed images are clamped to valid ones. Not
    the worst case: an attacker does not draw at random. Where a change so misleading is rare, plain
    sampling never sees it; subset simulation (Au and Beck 2001) does.

    Args:
        model: Any classifier, or a ``LoadedModel``.
        x: The images, [B, C, H, W], normalised.
        explainer: A method by name, or any function; no gradients are needed.
        size: Of the change, in pixel units; see ``CHANGES``.
        tau: The map is misleading where its correlation (PCC) with the original one is below.
        change: The kind of random change; see ``CHANGES``.
        method: ``subset``, or ``monte-carlo`` for plain sampling with ``samples`` maps in all.
        samples: Maps per level and run of subset simulation, at least 50.
        runs: Independent runs of subset simulation, at least 3; they give the interval.
        target: Class of each image; by default the predicted one.
        input_space: The model's normalisation; a ``LoadedModel`` brings its own, and without one x
            is in pixel units.
        batch_size: Images per pass.
        generator: Of the changes, drawn image by image, so that the second image of a batch meets
            other ones than alone; seed 0 by default.

    Returns:
        A ``Probability`` for each image, with its 95 % interval.

    Raises:
        UsageError: If a setting is out of range.
        ExplanationError: If an image has no map.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> found = misleading_probability(net, torch.full((1, 3, 2, 2), 0.5), size=0.1,
        ...                                explainer="gradient", method="monte-carlo")
        >>> found[0].value  # the gradient of a linear network is the same everywhere
        0.0
    """
    if not (size > 0 and math.isfinite(size)) or not -1 <= tau <= 1:
        raise UsageError(f"size must be positive and tau within -1..1, not {size} and {tau}")
    if change not in CHANGES:
        raise UsageError(f"unknown change '{change}': choose from {', '.join(CHANGES)}")
    if method not in ("subset", "monte-carlo"):
        raise UsageError(f"unknown method '{method}': choose subset or monte-carlo")
    if samples < 1 or batch_size < 1:
        raise UsageError("samples and batch_size must be at least 1")
    given = adapted(model, x, evaluation=True, differentiable=False)
    channels = given.x.shape[1]
    space = input_space or given.space or InputSpace((0.0,) * channels, (1.0,) * channels)
    judge, explain = frozen(given.model), as_explainer(explainer, space)
    classes = given.target(target)
    if classes is None:
        with torch.no_grad():
            classes = judge(given.x).argmax(dim=1)
    draw = generator or torch.Generator().manual_seed(0)
    found = []
    for index in range(len(given.x)):
        image, own = given.x[index : index + 1], classes[index : index + 1]
        before = comparable(explain(judge, image, own))

        def limit(normal: Tensor, image: Tensor = image, own: Tensor = own,
                  before: Tensor = before) -> Tensor:  # fmt: skip
            values = []
            for part in normal.split(batch_size):
                step = _change(part, size, change).view(-1, *image.shape[1:]).to(image)
                moved = space.clamp(image + space.scale(1.0, image) * step)
                share = heatmap(explain(judge, moved, own.expand(len(moved))))
                values.append(pcc(share, before.expand_as(share)).detach().cpu().double())
            return torch.cat(values)

        count = image[0].numel()
        if method == "monte-carlo":
            found.append(monte_carlo(limit, count, tau, samples, draw))
        else:
            found.append(subset_simulation(limit, count, tau, samples, draw, runs))
    return found


def _change(normal: Tensor, size: float, kind: str) -> Tensor:
    """Standard normal numbers [N, D] made into a change of that kind and size."""
    if kind == "gaussian":
        return size * normal
    if kind == "l2":
        return size * torch.nn.functional.normalize(normal, dim=1)
    return size * torch.erf(normal / math.sqrt(2))
