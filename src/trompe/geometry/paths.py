"""Paths from an image to its manipulated version, and how the normal turns along them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.engine import adapted, frozen, smooth
from trompe.errors import UsageError
from trompe.geometry.curvature import hessian_products
from trompe.in_brief import InBrief
from trompe.per_image import per_image

_NODES = ((-math.sqrt(0.6), 5 / 18), (0.0, 8 / 18), (math.sqrt(0.6), 5 / 18))


@dataclass(frozen=True, repr=False)
class PathReport(InBrief):
    """One image's path from p0 to p, and the inequality of Theorem 1 along it.

    Args:
        points: on the surface, [N, ...]; the first is x, the last x_adv moved onto the surface.
        straight: ``||x_adv - x||``.
        length: of the path: an upper estimate of the geodesic distance (a curve on the surface,
            shortened; another may be shorter). Nowhere below ``straight`` by more than the last
            point was moved.
        moved: how far x_adv was moved to reach the surface.
        deviation: the largest ``|g(p_i) - g(p0)| / ||grad g||`` over the points, in units of x.
        deviation_straight: the same on the straight line.
        turned: ``||n(p) - n(p0)||``, the left side.
        turning: ``integral ||P H gamma'|| / ||grad g||``, the right side, by quadrature.
        turned_straight: the left side for the straight line to x_adv itself.
        turning_straight: the right side along that line.
    """

    points: Tensor
    straight: float
    length: float
    moved: float
    deviation: float
    deviation_straight: float
    turned: float
    turning: float
    turned_straight: float
    turning_straight: float


def path_report(
    model: Any,
    x: Any,
    x_adv: Tensor,
    target: Any,
    *,
    beta: float,
    pooling: bool | float = True,
    points: int = 9,
    rounds: int = 5,
) -> tuple[PathReport, ...]:
    """Follow the surface ``g_k = g_k(x)`` of the softplus network from x to x_adv.

    The straight line is cut into pieces, its points are moved onto the surface by Newton steps
    along the gradient, and the curve is shortened (each point to the middle of its neighbours, and
    back to the surface). On every curve ``dn/dt = P H gamma' / ||grad g||``, so that
    ``||n(p) - n(p0)||`` is at most the integral of its norm (Dombrowski et al. 2019,
    Theorem 1); both sides are computed, the integral by Gauss's rule with three nodes per piece.

    Args:
        model: any module [B, ...] -> [B, K], or a ``LoadedModel``; float64 is advisable.
        x: the images before, [B, ...].
        x_adv: after an attack.
        target: the class of each, [B].
        beta: of the softplus network: a ReLU network has no curvature to integrate.
        pooling: as for ``trompe.smooth``.
        points: of the curve, its ends included.
        rounds: of shortening.

    Raises:
        UsageError: if the shapes differ or there are fewer than two points.
    """
    given = adapted(model, x, evaluation=True)
    x, target = given.x, given.target(target)
    if x.shape != x_adv.shape or points < 2:
        raise UsageError("x and x_adv must have one shape, and a path at least two points")
    network = smooth(frozen(given.model), beta=beta, pooling=pooling)
    share = torch.linspace(0, 1, points, dtype=x.dtype, device=x.device)
    share = per_image(share, x)
    reports = []
    for index in range(len(x)):
        start, end = x[index].detach(), x_adv[index].detach()
        k = target[index : index + 1]
        line = start + share * (end - start)
        level, _ = _score(network, start[None], k)
        curve = _onto(network, line.clone(), k, level)
        for _ in range(rounds):
            if points > 2:
                curve[1:-1] = (curve[:-2] + curve[2:]) / 2
            curve[1:-1] = _onto(network, curve[1:-1], k, level)
        turned, turning = _turning(network, curve, k)
        turned_line, turning_line = _turning(network, line, k)
        reports.append(
            PathReport(
                points=curve,
                straight=float((end - start).norm()),
                length=float((curve[1:] - curve[:-1]).flatten(1).norm(dim=1).sum()),
                moved=float((curve[-1] - end).norm()),
                deviation=_deviation(network, curve, k, level),
                deviation_straight=_deviation(network, line, k, level),
                turned=turned,
                turning=turning,
                turned_straight=turned_line,
                turning_straight=turning_line,
            )
        )
    return tuple(reports)


def _score(network: nn.Module, points: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [N] and gradients [N, ...]."""
    with torch.enable_grad():
        start = points.detach().clone().requires_grad_(True)
        score = network(start)[:, int(k)]
        (gradient,) = torch.autograd.grad(score.sum(), start)
    return score.detach(), gradient.detach()


def _onto(network: nn.Module, points: Tensor, k: Tensor, level: Tensor) -> Tensor:
    """The points moved along their gradients until the score is the level."""
    for _ in range(8):
        score, gradient = _score(network, points, k)
        square = gradient.flatten(1).square().sum(dim=1).clamp(min=1e-300)
        step = (score - level) / square
        points = points - per_image(step, points) * gradient
        if float((step * square.sqrt()).abs().max()) < 1e-13:
            break
    return points


def _deviation(network: nn.Module, points: Tensor, k: Tensor, level: Tensor) -> float:
    score, gradient = _score(network, points, k)
    return float(((score - level).abs() / gradient.flatten(1).norm(dim=1)).max())


def _turning(network: nn.Module, curve: Tensor, k: Tensor) -> tuple[float, float]:
    """Both sides of the inequality along a polygon."""
    steps = curve[1:] - curve[:-1]
    total = 0.0
    for node, weight in _NODES:
        middle = curve[:-1] + (1 + node) / 2 * steps
        gradient, product = hessian_products(network, middle, k.expand(len(middle)))
        size = gradient.norm(dim=1, keepdim=True)
        normal = gradient / size
        image = product(steps.flatten(1))
        image = image - normal * (normal * image).sum(dim=1, keepdim=True)
        total += weight * float((image / size).norm(dim=1).sum())
    _, ends = _score(network, torch.stack([curve[0], curve[-1]]), k)
    normals = torch.nn.functional.normalize(ends.flatten(1), dim=1)
    return float((normals[1] - normals[0]).norm()), total
