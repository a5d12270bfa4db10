"""beta-smoothing measured: how near the smoothed map stays, and what it undoes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.engine import adapted, frozen, smooth
from trompe.explain import explainer
from trompe.in_brief import InBrief
from trompe.metrics.attack import Similarity, similarity
from trompe.types import Explainer, heatmap


@dataclass(frozen=True, repr=False)
class Likeness(Similarity):
    """How alike two series of heat maps are over beta: every number is [betas, B].

    Args:
        betas: of the softplus networks.
    """

    betas: tuple[float, ...]


def smoothed_maps(
    model: Any,
    x: Any,
    target: Any,
    *,
    betas: Sequence[float | None],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Tensor:
    """Heat maps of the network as beta falls (figures 4, 8 and 9 of Dombrowski et al. 2019).

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        x: images, normalised.
        target: class of each, [B].
        betas: of the softplus networks, positive; ``None`` for the network as it is.
        method: the gradient by default.
        pooling: as for ``trompe.smooth``; the paper leaves max pooling.

    Returns:
        [betas, B, H, W], not negative, each map summing to 1.

    Raises:
        UsageError: if a beta is not positive.
        ExplanationError: if a map is all zero or not finite.
    """
    given, method = adapted(model, x, evaluation=True), method or explainer("gradient")
    judge, classes = frozen(given.model), given.target(target)
    found = []
    for beta in betas:
        used = judge if beta is None else smooth(judge, beta=beta, pooling=pooling)
        found.append(heatmap(method(used, given.x.detach(), classes)).detach())
    return torch.stack(found)


def _alike(betas: Sequence[float], maps: Tensor, others: Tensor) -> Likeness:
    """``maps`` [betas, B, H, W] beside ``others``, [B, H, W] or one such per beta."""
    found = similarity(maps, others.expand_as(maps), leading=2)
    return Likeness(mse=found.mse, ssim=found.ssim, pcc=found.pcc, betas=tuple(betas))


def distance_to_relu(
    model: Any,
    x: Any,
    target: Any,
    *,
    betas: Sequence[float],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Likeness:
    """How alike softplus maps are to the ReLU map, against beta (figures 7, 8 and 9 of the paper).

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        x: images.
        target: class of each, [B].
        betas: of the softplus networks.
        method: the gradient by default.
        pooling: as for ``trompe.smooth``; the paper leaves max pooling.

    Raises:
        UsageError: if a beta is not positive.
        ExplanationError: if a map is all zero or not finite.
    """
    maps = smoothed_maps(model, x, target, betas=(None, *betas), method=method, pooling=pooling)
    return _alike(betas, maps[1:], maps[0])


@dataclass(frozen=True, repr=False)
class Recovery(InBrief):
    """Maps of manipulated images against the original ones and the target (figure 4)."""

    to_original: Likeness
    to_target: Likeness


def recovery(
    model: Any,
    x: Any,
    x_adv: Any,
    target: Any,
    target_map: Tensor,
    *,
    betas: Sequence[float],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Recovery:
    """How far smoothing undoes an attack on the plain map (figure 4 of the paper).

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        x: original images.
        x_adv: manipulated ones.
        target: the class explained, [B].
        target_map: what the attack aimed at, [B, H, W].
        betas: of the smoothing.
        method: the one attacked; the gradient by default.
        pooling: as for ``trompe.smooth``.

    Returns:
        Likeness of the smoothed map of x_adv to the smoothed map of x, and to the target.

    Raises:
        UsageError: if a beta is not positive.
        ExplanationError: if a map is all zero or not finite.
    """
    classes = adapted(model, x, evaluation=True).target(target)  # of x, of the other images too
    after, before = (
        smoothed_maps(model, images, classes, betas=betas, method=method, pooling=pooling)
        for images in (x_adv, x)
    )
    return Recovery(_alike(betas, after, before), _alike(betas, after, target_map.to(after)))
