"""From bounds of the slopes to bounds of the gradient's change over the ball.

With slopes D = D0 + dD and the derivative r by a layer's output, the derivative by its argument is
``D r``; both factors move. The change is carried as a box per entry and as an l2 norm. Where the
network is smooth, the norm of its Hessian ``H = sum_l J_l^T diag(s''(z_l) r_l) J_l`` (Dombrowski
et al. 2019, Theorem 1; Singla and Feizi 2020) is bounded on the way, and with exact Jacobians its
value at x and the distance of each entry from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.certificates.ball import Ball
from trompe.certificates.forward import Forward, Reach, interval, nonnegative_norm
from trompe.certificates.gates import Gate, LogSumExp, Range, Softplus
from trompe.certificates.linear_maps import LinearMap
from trompe.certificates.network import Network, Node
from trompe.certificates.upper import EPS, WIDEN


@dataclass
class Pull:
    """The derivative of the score by a node's output.

    Args:
        exact: at x, [1, ...].
        change: box of its change in the ball.
        ball: at least the l2 norm of that change.
    """

    exact: Tensor
    change: Range
    ball: float


@dataclass
class BallHessian:
    """Bounds of the score's Hessian in the ball.

    Args:
        norm: at least its spectral norm anywhere in the ball.
        exact: its value at x, [d, d], or ``None``.
        error: at least the distance of each entry from it, [d, d].
    """

    norm: float
    exact: Tensor | None = None
    error: Tensor | None = None


@dataclass
class Backward:
    """The gradient [1, ...] at x, bounds of its change, and of the Hessian."""

    gradient: Pull
    hessian: BallHessian


def backward(network: Network, reached: Forward, target: int) -> Backward:
    """Bounds of the change of the gradient of logit ``target``."""
    logits = reached.values[-1]
    seed = torch.zeros_like(logits)
    seed[0, target] = 1.0
    zero = torch.zeros_like(seed)
    hessian = BallHessian(0.0)
    smooth = network.smooth and all(reach.exact is not None for reach in reached.reach)
    if smooth:
        size = reached.values[0].numel()
        hessian.exact = torch.zeros(size, size, dtype=torch.float64)
        hessian.error = torch.zeros_like(hessian.exact)

    def visit(number: int, node: Node, pull: Pull) -> Pull:
        if isinstance(node.part, LinearMap):
            return _affine(node.part, pull)
        if isinstance(node.part, Gate):
            return _gated(reached, number, node.parents[0], node.part, pull, hessian)
        return pull

    seeds = {len(network.nodes) - 1: Pull(seed, Range(zero, zero), 0.0)}
    start = reached.values[0]
    nothing = torch.zeros_like(start)
    gradient = network.walk_back(seeds, visit, _sum)
    return Backward(gradient or Pull(nothing, Range(nothing, nothing), 0.0), hessian)


def _tightened(exact: Tensor, low: Tensor, high: Tensor, ball: float) -> Pull:
    low, high = low.clamp(min=-ball), high.clamp(max=ball)
    ball = min(ball, WIDEN * float(torch.maximum(-low, high).norm()))
    return Pull(exact, Range(low, high), ball)


def _sum(one: Pull, other: Pull) -> Pull:
    return _tightened(
        one.exact + other.exact,
        one.change.low + other.change.low,
        one.change.high + other.change.high,
        one.ball + other.ball,
    )


def _affine(part: LinearMap, pull: Pull) -> Pull:
    exact = part.transpose(pull.exact)
    noise = 4096 * EPS * part.magnitude.transpose(pull.exact.abs())
    box = interval(part, pull.change, transposed=True)
    ball = WIDEN * part.norm * pull.ball + float(noise.norm())
    return _tightened(exact, box.low - noise, box.high + noise, ball)


def _gated(
    reached: Forward, number: int, parent: int, gate: Gate, pull: Pull, hessian: BallHessian
) -> Pull:
    slopes, nominal = reached.slopes[number], reached.nominal[number]
    r = gate.spread(pull.exact)
    low, high = r + gate.spread(pull.change.low), r + gate.spread(pull.change.high)
    exact = nominal * r
    top = torch.where(high > 0, slopes.high, slopes.low) * high
    bottom = torch.where(low < 0, slopes.high, slopes.low) * low
    noise = 8 * EPS * torch.maximum(low.abs(), high.abs())
    moved = torch.maximum(slopes.high - nominal, nominal - slopes.low) * r.abs()
    gain = gate.gain(slopes)
    ball = WIDEN * (gain * pull.ball + float(moved.norm())) + float(noise.norm())
    most = torch.maximum(pull.exact + pull.change.high, -pull.exact - pull.change.low).clamp(min=0)
    _bend(hessian, reached, number, parent, gate, pull, most)
    return _tightened(exact, bottom - exact - noise, top - exact + noise, ball)


def _bend(
    hessian: BallHessian,
    reached: Forward,
    number: int,
    parent: int,
    gate: Gate,
    pull: Pull,
    most: Tensor,
) -> None:
    """Add what a gate contributes to the Hessian."""
    reach = reached.reach[parent]
    bends = torch.full_like(most, gate.bend)
    if not reached.everywhere:
        bends = gate.bends(reached.boxes[number]).clamp(max=gate.bend)
    bends = torch.where(most > 0, bends * most, 0.0)  # infinity times nothing is nothing
    share = min(
        float(bends.max()) * reach.jacobian**2,
        float((bends * gate.gather(reach.rows.square())).sum()),
    )
    hessian.norm = WIDEN * (hessian.norm + share)
    if hessian.exact is None:
        return
    r = pull.exact
    now = Range(r + pull.change.low, r + pull.change.high)
    u = reached.values[parent]
    box = reached.boxes[number]
    if isinstance(gate, Softplus):
        _curve(hessian, reach, gate.second(u) * r, _product(gate.seconds(box), now))
    elif isinstance(gate, LogSumExp):
        # beta r (diag(p) - p p^T), the second part along the pool's own Jacobian.
        own = reached.reach[number]
        spread = Range(gate.spread(now.low), gate.spread(now.high))
        _curve(
            hessian,
            reach,
            gate.beta * reached.nominal[number] * gate.spread(r),
            _scaled(_product(reached.slopes[number], spread), gate.beta),
        )
        _curve(hessian, own, -gate.beta * r, Range(-gate.beta * now.high, -gate.beta * now.low))


def _product(positive: Range, factor: Range) -> Range:
    high = torch.where(factor.high > 0, positive.high, positive.low) * factor.high
    low = torch.where(factor.low < 0, positive.high, positive.low) * factor.low
    return Range(low, high)


def _scaled(box: Range, factor: float) -> Range:
    return Range(factor * box.low, factor * box.high)


def _curve(hessian: BallHessian, reach: Reach, weight: Tensor, weights: Range) -> None:
    """Add ``J^T diag(weight) J`` at x, and how far its entries move in the ball."""
    if reach.exact is None or reach.error is None or hessian.exact is None:
        return
    exact, error = reach.exact.flatten(1), reach.error.flatten(1)
    centre = weight.flatten()
    away = torch.maximum(weights.high - weight, weight - weights.low).flatten()
    away = away + 8 * EPS * centre.abs()
    size = exact.abs()
    hessian.exact = hessian.exact + (exact * centre) @ exact.mT
    moved = size + error
    cross = (error * centre.abs()) @ size.mT
    added = (moved * away) @ moved.mT + cross + cross.mT + (error * centre.abs()) @ error.mT
    noise = 4096 * EPS * ((size * centre.abs()) @ size.mT)
    hessian.error = WIDEN * (hessian.error + added + noise)  # type: ignore[operator]


def rates(
    hessian: BallHessian, ball: Ball, size: int, normal: Tensor | None = None
) -> tuple[float, Tensor | None]:
    """How fast the gradient can change per unit of radius: in l2, and entry by entry.

    Args:
        hessian: bounds in the ball.
        ball: its norm counts, not its radius.
        size: dimensions d.
        normal: a unit vector [d]: only the change orthogonal to it counts.
    """
    factor = ball.stretch(size)
    total = hessian.norm * factor
    if hessian.exact is None or hessian.error is None:
        return total, None
    exact, error = hessian.exact, hessian.error
    if normal is None:
        entrywise = error
    else:
        exact = exact - torch.outer(normal, normal @ exact)
        entrywise = WIDEN * (error + torch.outer(normal.abs(), normal.abs() @ error))
        entrywise = entrywise + 1e-13 * hessian.exact.abs().max()
    spectral = WIDEN * float(torch.linalg.matrix_norm(exact, 2))
    total = min(total, factor * (spectral + nonnegative_norm(error)))
    whole = exact.abs() + entrywise
    entries = WIDEN * ball.norm.dual(whole, dim=1)
    return min(total, WIDEN * float(entries.norm())), entries
