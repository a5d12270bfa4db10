"""beta-smoothing measured: how near the smoothed map stays, what it undoes, which beta to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe import metrics
from trompe.engine import frozen, smooth
from trompe.errors import CertificateError, ExplanationError, UsageError
from trompe.explain import explainer
from trompe.geometry.curvature import principal_curvatures
from trompe.geometry.layers import layer_bounds
from trompe.geometry.reading import trace
from trompe.types import Explainer, heatmap

BETAS = (100.0, 30.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.8, 0.5)
"""From which ``choose_beta`` chooses."""


@dataclass(frozen=True)
class Likeness:
    """How alike two series of heat maps are, by mse, ssim and pcc, each [betas, B]."""

    betas: tuple[float, ...]
    mse: Tensor
    ssim: Tensor
    pcc: Tensor


def smoothed_maps(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    betas: Sequence[float | None],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Tensor:
    """Heat maps of the network as beta falls (figures 4, 8 and 9 of Dombrowski et al. 2019).

    Args:
        model: any module [B, C, H, W] -> [B, K].
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
    judge, method = frozen(model), method or explainer("gradient")
    found = []
    for beta in betas:
        used = judge if beta is None else smooth(judge, beta=beta, pooling=pooling)
        found.append(heatmap(method(used, x.detach(), target)).detach())
    return torch.stack(found)


def _alike(betas: Sequence[float], maps: Tensor, others: Tensor) -> Likeness:
    """``maps`` [betas, B, H, W] beside ``others``, [B, H, W] or one such per beta."""
    pairs = list(zip(maps, others.expand_as(maps), strict=True))

    def rows(measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.stack([measure(one, other) for one, other in pairs])

    return Likeness(tuple(betas), rows(metrics.mse), rows(metrics.ssim_or_nan), rows(metrics.pcc))


def distance_to_relu(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    betas: Sequence[float],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Likeness:
    """How alike softplus maps are to the ReLU map, against beta (figures 7, 8 and 9 of the paper).

    Args:
        model: any module [B, C, H, W] -> [B, K].
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


@dataclass(frozen=True)
class Recovery:
    """Maps of manipulated images against the original ones and the target (figure 4)."""

    to_original: Likeness
    to_target: Likeness


def recovery(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    target: Tensor,
    target_map: Tensor,
    *,
    betas: Sequence[float],
    method: Explainer | None = None,
    pooling: bool | float = False,
) -> Recovery:
    """How far smoothing undoes an attack on the plain map (figure 4 of the paper).

    Args:
        model: any module [B, C, H, W] -> [B, K].
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
    after, before = (
        smoothed_maps(model, images, target, betas=betas, method=method, pooling=pooling)
        for images in (x_adv, x)
    )
    return Recovery(_alike(betas, after, before), _alike(betas, after, target_map.to(after)))


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
    model: nn.Module,
    x: Tensor,
    target: Tensor | None = None,
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
        target: class of each; by default the predicted one.
        betas: to choose from.
        threshold: of the correlation.
        pooling: as for ``trompe.smooth``.
        steps: of Lanczos, for the curvature.

    Raises:
        UsageError: if threshold is not within 0..1 or there is no beta.
    """
    if not 0 < threshold < 1 or not betas:
        raise UsageError("threshold must be within 0..1, and there must be a beta")
    judge = frozen(model)
    if target is None:
        with torch.no_grad():
            target = judge(x.detach().clone()).argmax(dim=1)
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
