"""From a ball around x to bounds of every value, slope and Jacobian within it.

Two domains are carried side by side, each tightening the other: a box per entry, and l2 norms of
the whole. For inputs of few dimensions a third one: the Jacobian of every node, as its exact value
at x and a bound per entry of how far it moves (mean value form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.certificates.ball import Ball
from trompe.certificates.gates import Gate, Range
from trompe.certificates.linear_maps import LinearMap
from trompe.certificates.network import Network
from trompe.certificates.upper import EPS, WIDEN
from trompe.errors import CertificateError

_DENSE_ENTRIES = 3_000_000


@dataclass
class Reach:
    """What is known of one node in the ball.

    Args:
        change: of its exact value against the exact value at x, [1, ...].
        ball: of the l2 norm of that change.
        jacobian: at least the spectral norm of its derivative by x.
        rows: at least the l2 norm of each row of it, [1, ...].
        exact: its Jacobian at x, [d, ...], input first; ``None`` for large inputs.
        error: how far the entries of the Jacobian move, [d, ...].
    """

    change: Range
    ball: float
    jacobian: float
    rows: Tensor
    exact: Tensor | None = None
    error: Tensor | None = None


@dataclass
class Forward:
    """The reach of every node, and of every gate its slopes and the argument's box.

    ``rounding`` bounds the error of each computed value (running error analysis), so that boxes
    hold for the exact network, not for the computed one.
    """

    values: list[Tensor]
    rounding: list[Tensor]
    everywhere: bool = False
    reach: list[Reach] = field(default_factory=list)
    slopes: dict[int, Range] = field(default_factory=dict)
    nominal: dict[int, Tensor] = field(default_factory=dict)
    boxes: dict[int, Range] = field(default_factory=dict)


def nonnegative_norm(matrix: Tensor) -> float:
    """At least the spectral norm of a matrix without negative entries (Collatz and Wielandt).

    For every positive v the norm squared is at most ``max (M^T M v)_i / v_i``.
    """
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.mT
    vector = matrix.new_ones(matrix.shape[1])
    best = float("inf")
    for _ in range(8):
        image = matrix.mT @ (matrix @ vector)
        best = min(best, float((image / vector).max()))
        if best == 0:
            return 0.0
        vector = image.clamp(min=1e-6 * float(image.max()))
    return WIDEN * math.sqrt(best)


def dense_is_small(network: Network, values: list[Tensor]) -> bool:
    """Whether Jacobians of all nodes can be held."""
    return values[0].numel() * max(v.numel() for v in values) <= _DENSE_ENTRIES


def forward(
    network: Network, values: list[Tensor], ball: Ball, *, everywhere: bool, dense: bool
) -> Forward:
    """Bounds of every node over the ball.

    Args:
        network: as traced.
        values: of its nodes at x, [1, ...].
        ball: around x.
        everywhere: bound slopes by what holds at all inputs, not by values: layer norms alone.
        dense: carry Jacobians.
    """
    out = Forward(values, rounding(network, values), everywhere)
    size = values[0].numel()
    for number, node in enumerate(network.nodes):
        if not node.parents:
            edge = torch.full_like(values[0], ball.radius)
            exact = error = None
            if dense:
                exact = torch.eye(size, dtype=torch.float64).view(size, *values[0].shape[1:])
                error = torch.zeros_like(exact)
            reach = Reach(
                Range(-edge, edge), ball.l2(size), 1.0, torch.ones_like(edge), exact, error
            )
        else:
            reach = _joined([out.reach[p] for p in node.parents])
            if isinstance(node.part, LinearMap):
                reach = _affine(node.part, reach)
            elif isinstance(node.part, Gate):
                reach = _gated(out, number, node.part, reach, node.parents[0], everywhere)
            _tighten(reach, ball, size)
        out.reach.append(reach)
    return out


def _joined(parts: list[Reach]) -> Reach:
    first = parts[0]
    for other in parts[1:]:
        both = first.exact is not None and other.exact is not None
        first = Reach(
            Range(first.change.low + other.change.low, first.change.high + other.change.high),
            first.ball + other.ball,
            first.jacobian + other.jacobian,
            first.rows + other.rows,
            first.exact + other.exact if both else None,  # type: ignore[operator]
            first.error + other.error if both else None,  # type: ignore[operator]
        )
    return first


def interval(part: LinearMap, box: Range, *, transposed: bool = False) -> Range:
    """The image of a box: centre by the map, radius by its magnitude."""
    centre, radius = (box.high + box.low) / 2, (box.high - box.low) / 2
    if transposed:
        centre, radius = part.transpose(centre), part.magnitude.transpose(radius)
    else:
        centre, radius = part.apply(centre), part.magnitude.apply(radius)
    radius = radius * WIDEN + EPS * centre.abs()
    return Range(centre - radius, centre + radius)


def rounding(network: Network, values: list[Tensor]) -> list[Tensor]:
    """How far each computed value may be from the exact one, node by node."""
    errors: list[Tensor] = []
    for number, node in enumerate(network.nodes):
        error = torch.zeros_like(values[number])
        for parent in node.parents:
            error = errors[parent] if len(node.parents) == 1 else error + errors[parent]
        own = torch.where(values[number].isinf(), 0.0, values[number].abs())
        if isinstance(node.part, LinearMap):
            size = node.part.magnitude.apply(values[node.parents[0]].abs())
            error = node.part.magnitude.apply(error) + node.part.terms * EPS * size
        elif isinstance(node.part, Gate) and node.part.windowed:
            error = error.amax(dim=1)
        errors.append(error * WIDEN + 8 * EPS * own)
    return errors


def _affine(part: LinearMap, reach: Reach) -> Reach:
    box = interval(part, reach.change)
    limit = WIDEN * part.row_norms * reach.ball
    rows = torch.minimum(
        part.magnitude.apply(reach.rows), (part.row_norms * reach.jacobian).expand_as(box.low)
    )
    exact, error = reach.exact, reach.error
    if exact is not None and error is not None:
        error = part.magnitude.apply(error + (part.terms + 4) * EPS * exact.abs()) * WIDEN
        exact = part.apply(exact)
    return Reach(
        Range(torch.maximum(box.low, -limit), torch.minimum(box.high, limit)),
        WIDEN * part.norm * reach.ball,
        WIDEN * part.norm * reach.jacobian,
        WIDEN * rows,
        exact,
        error,
    )


def _gated(
    out: Forward, number: int, gate: Gate, reach: Reach, parent: int, everywhere: bool
) -> Reach:
    u = out.values[parent]
    off = out.rounding[parent]
    box = Range(u + reach.change.low - off, u + reach.change.high + off)
    slope = gate.slope(u)
    if everywhere:
        slopes = Range(torch.zeros_like(slope), torch.ones_like(slope))
    else:
        slopes = gate.slopes(box)
        # Rounding of the slopes themselves, and of the nominal one, which must lie within.
        slopes = Range(
            torch.minimum(slopes.low - 4 * EPS, slope).clamp(min=0),
            torch.maximum(slopes.high + 4 * EPS, slope).clamp(max=1),
        )
    out.slopes[number], out.nominal[number], out.boxes[number] = slopes, slope, box
    value = gate.value(u)
    ends = Range(gate.value(box.low), gate.value(box.high))
    noise = 8 * EPS * (value.abs() + ends.low.abs() + ends.high.abs())
    noise = noise + (off.amax(dim=1) if gate.windowed else off)
    rise = gate.gather(slopes.high * reach.change.high.clamp(min=0)) * WIDEN
    fall = gate.gather(slopes.high * reach.change.low.clamp(max=0)) * WIDEN
    change = Range(
        torch.maximum(ends.low - value - noise, fall),
        torch.minimum(ends.high - value + noise, rise),
    )
    gain = gate.gain(slopes)
    rows = gate.gather(slopes.high * reach.rows)
    if gate.windowed:
        rows = torch.minimum(rows, reach.rows.amax(dim=1))
    exact, error = reach.exact, reach.error
    if exact is not None and error is not None:
        away = torch.maximum(slopes.high - slope, slope - slopes.low) + 4 * EPS
        error = gate.gather(slopes.high * error + away * exact.abs()) * WIDEN
        exact = gate.gather(slope * exact)
    return Reach(
        change, WIDEN * gain * reach.ball, WIDEN * gain * reach.jacobian, WIDEN * rows, exact, error
    )


def _tighten(reach: Reach, ball: Ball, size: int) -> None:
    """Let each domain cut the others."""
    if reach.exact is not None and reach.error is not None:
        moved = reach.exact.abs() + reach.error
        reach.rows = torch.minimum(reach.rows, WIDEN * moved.norm(dim=0, keepdim=True))
        matrix, error = reach.exact.flatten(1), reach.error.flatten(1)
        if not bool(torch.isfinite(matrix).all()):
            raise CertificateError(
                "the network reckons with numbers that are not finite (NaN or infinity), of which "
                "nothing is proved: check its weights"
            )
        exact = WIDEN * float(torch.linalg.matrix_norm(matrix, 2))
        reach.jacobian = min(reach.jacobian, exact + nonnegative_norm(error))
        limit = ball.dual(moved).unsqueeze(0)
    else:
        limit = WIDEN * ball.l2(size) * reach.rows
    reach.rows = reach.rows.clamp(max=reach.jacobian)
    reach.ball = min(reach.ball, WIDEN * reach.jacobian * ball.l2(size))
    limit = limit.clamp(max=reach.ball)
    reach.change = Range(
        torch.maximum(reach.change.low, -limit), torch.minimum(reach.change.high, limit)
    )
    most = torch.maximum(reach.change.low.abs(), reach.change.high.abs())
    reach.ball = min(reach.ball, WIDEN * float(most.norm()))
