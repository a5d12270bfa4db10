"""How far a gate's argument and derivative move in a ball: telescoping, unit by unit.

The letters are those of ``methods/telescope.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trompe.certificates.gates import Gate, Range
from trompe.certificates.upper import EPS, Upper


class ArgumentMove(NamedTuple):
    """The argument z_m of a gate: [1, ...] at x, its rounding error, and its move in the ball.

    Args:
        z: As computed.
        off: At least its rounding error.
        entries: At least ``|z_m' - z_m|``, entry by entry.
        size: At least the l2 norm of that.
        drift: At least that of the remainders' part of it, ``sum_{l<m} J_lm e_l``.
        box: All values of the exact argument in the ball.
    """

    z: Tensor
    off: Tensor
    entries: Upper
    size: Upper
    drift: Upper
    box: Range


class DerivativeMove(NamedTuple):
    """The derivative D_l of a gate: how far it is in the ball from what was computed at x.

    Args:
        away: At least ``|D_l' - D_l|``, entry by entry, of the argument's shape.
        per_output: At least the l2 norm of that for one output.
        bends: At least the norm of the second derivative of one output.
        slack: At least the error of the slopes at x, since z is off by rounding.
    """

    away: Upper
    per_output: Upper
    bends: Upper
    slack: Upper


def derivative_move(gate: Gate, argument: ArgumentMove, slope: Tensor) -> DerivativeMove:
    """``D_l' - D_l`` over the box of the argument; ``slope`` is D_l as computed."""
    slopes = gate.slopes(argument.box)
    away = torch.maximum(slopes.high - slope, slope - slopes.low).clamp(0, 1) + 8 * EPS
    bends = gate.bends(argument.box).clamp(max=gate.bend)
    # Where a kink is within reach the slopes in the box cover the error of that at x.
    smooth = Upper(torch.where(bends.isinf(), 0.0, bends))
    slack = smooth * Upper(argument.off).square().mapped(gate.gather).sqrt()
    return DerivativeMove(
        away=Upper(away),
        per_output=Upper(away).square().mapped(gate.gather).sqrt(),
        bends=Upper(bends),
        slack=Upper(gate.spread(slack.value) + torch.full_like(argument.z, 8 * EPS)),
    )


def remainder(gate: Gate, argument: ArgumentMove, derivative: DerivativeMove) -> Upper:
    """``||e_l||``: by the slopes' move, or by half the second derivative times the square."""
    dz, lost = argument.entries, derivative.slack * argument.entries
    lost = lost.mapped(gate.gather)
    squares = dz.square().mapped(gate.gather)
    by_slope = (derivative.away * dz).mapped(gate.gather)
    by_bend = derivative.bends * squares * 0.5 + lost
    return (
        by_slope.cut(by_bend)
        .norm()
        .cut(
            derivative.per_output.largest() * argument.size,
            (derivative.bends * squares.sqrt() * 0.5).largest() * argument.size + lost.norm(),
        )
    )


def turn(gate: Gate, argument: ArgumentMove, derivative: DerivativeMove) -> Upper:
    """``||D_l' - D_l||``: the outputs of a gate share no arguments, so the largest one counts."""
    squares = argument.entries.square().mapped(gate.gather)
    slack = derivative.slack.square().mapped(gate.gather).sqrt()
    by_bend = derivative.bends * squares.sqrt() + slack
    return derivative.per_output.largest().cut(by_bend.largest())
