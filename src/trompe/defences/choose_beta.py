"""Which beta to smooth with: as small as the maps stay faithful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.certificates.layer_norms import layer_bounds
from trompe.certificates.trace import trace
from trompe.engine import adapted, smooth
from trompe.engine.smoothing import unwrapped
from trompe.errors import CertificateError, ExplanationError, UsageError
from trompe.geometry import distance_to_relu, principal_curvatures

BETAS = (100.0, 30.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.8, 0.5)
"""From which ``choose_beta`` chooses."""


@dataclass(frozen=True)
class Choice:
    """What each beta costs and brings, and the beta chosen.

    Args:
        betas: falling.
        faithful: median correlation of the smoothed with the plain map, per beta.
        curvature: median ``|lambda_max|``, measured at the images, per beta.
        bound: proved ``b C / ||grad g||`` from layer norms, median; ``inf`` where there is none.
        chosen: the smallest beta whose maps are still faithful.
        threshold: of being faithful.
    """

    betas: tuple[float, ...]
    faithful: tuple[float, ...]
    curvature: tuple[float, ...]
    bound: tuple[float, ...]
    chosen: float
    threshold: float


def choose_beta(
    model: Any,
    x: Any,
    target: Any = None,
    *,
    betas: Sequence[float] = BETAS,
    threshold: float = 0.7,
    pooling: bool | float = True,
    steps: int = 30,
) -> Choice:
    """Choose beta for a network: as small as the maps stay faithful.

    The curvature, and with it how far an explanation can be turned within a radius (Theorem 1),
    falls with beta; so does the correlation of the smoothed with the plain map. The rule takes the
    smallest beta down to which every median correlation is at least ``threshold``: all that is
    gained beyond is paid for with maps that no longer explain the network in use.

    Args:
        model: any module [B, C, H, W] -> [B, K].
        x: typical images.
        target: class of each; by default the one that the model itself predicts.
        betas: to choose from.
        threshold: of the correlation.
        pooling: as for ``trompe.smooth``.
        steps: of Lanczos, for the curvature.

    Raises:
        UsageError: if threshold is not within 0..1 or there is no beta.
    """
    if not 0 < threshold < 1 or not betas:
        raise UsageError("threshold must be within 0..1, and there must be a beta")
    given = adapted(model, x, evaluation=True)
    judge, x, target = unwrapped(given.model), given.x, given.target(target)
    order = sorted(betas, reverse=True)
    likeness = distance_to_relu(judge, x, target, betas=order, pooling=pooling)
    faithful = [float(row.nanmedian()) for row in likeness.pcc]
    curvatures, bounds = [], []
    for beta in order:
        try:
            found = principal_curvatures(
                judge, x, target, k=1, beta=beta, pooling=pooling, steps=steps, tolerance=1e-2
            )
            curvatures.append(float(found.values[:, 0].abs().median()))
            bounds.append(float((_proved(judge, x, target, beta) / found.gradient_norm).median()))
        except ExplanationError:
            curvatures.append(float("nan"))
            bounds.append(float("inf"))
    chosen = order[0]
    for beta, share in zip(order, faithful, strict=True):
        if not share >= threshold:
            break
        chosen = beta
    return Choice(
        tuple(order), tuple(faithful), tuple(curvatures), tuple(bounds), chosen, threshold
    )


def _proved(model: nn.Module, x: Tensor, target: Tensor, beta: float) -> Tensor:
    """``sup ||H||`` of each image's class from layer norms, [B]; infinite where not covered."""
    try:
        network = trace(smooth(model, beta=beta, pooling=True), x[:1])
    except CertificateError:
        return torch.full(target.shape, torch.inf)
    shape = network.values(x[:1].detach().double().cpu())[-1].shape
    values = {
        k: layer_bounds(network, k, shape, lambda part: part.norm).curvature
        for k in set(target.tolist())
    }
    return torch.tensor([values[k] for k in target.tolist()])
