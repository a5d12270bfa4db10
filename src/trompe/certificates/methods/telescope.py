"""Bounds from exact Jacobians at x and from how far each gate's derivative moves: no layer norms.

Let z_l be the argument of gate l, D_l its derivative at x, J_lm the Jacobian of z_m by the output
of gate l at x, and r_l the derivative of the score by that output, also at x. Two exact identities
hold for every x' = x + d, primes marking what belongs to x':

    z_m' - z_m = J_0m d + sum_{l<m} J_lm e_l,    e_l = s(z_l') - s(z_l) - D_l (z_l' - z_l),
    grad g' - grad g = sum_l J_0l'^T (D_l' - D_l)^T r_l.

The remainders e_l and the moves D_l' - D_l are bounded unit by unit, over the box that the first
identity gives z_l; and with ``J_0m' = J_0m + sum_{l<m} J_lm (D_l' - D_l) J_0l'`` the norms of J'
follow, gate by gate. Without a kink within reach ``D_l' - D_l = T_l (z_l' - z_l)``, T_l second
derivatives in the box, and W_l those at x, both times r_l, so that (H the Hessian at x)

    grad g' - grad g = H d + sum_l J_0l^T (T_l - W_l) J_0l d + second order,

the sum at most ``t N ||d||`` with ``N >= ||sum_l J_0l^T C_l J_0l||`` and t such that
``-t C_l <= T_l - W_l <= t C_l``. So norms are those of the products of layers at x,
far below the products of the layers' norms, as long as the radius is small enough for the sums to
stay small. Every quantity here is an ``Upper``: it rounds outward by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds, gradients_within
from trompe.certificates.forward import Forward, Reach, forward
from trompe.certificates.gate_moves import (
    ArgumentMove,
    DerivativeMove,
    derivative_move,
    remainder,
    turn,
)
from trompe.certificates.gates import Gate, Range
from trompe.certificates.jacobian_norms import Jacobian
from trompe.certificates.linearised import Linearised
from trompe.certificates.methods.base import ProvedBound, certificates
from trompe.certificates.network import Network
from trompe.certificates.prepared import Prepared
from trompe.certificates.upper import EPS, Upper

_SECONDS = 10**9
"""What ``linearise`` may cost beside the other methods of ``best``."""


@certificates.register("telescope")
@dataclass(frozen=True)
class Telescope(ProvedBound):
    """Exact Jacobians at x between all gates, and how far each gate's derivative moves."""

    name = "telescope"

    def affordable(self, prepared: Prepared) -> bool:
        """See ``ProvedBound``: linearising tiny-vgg takes a quarter of an hour."""
        return prepared.cost <= _SECONDS

    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """See ``ProvedBound``."""
        at, network = prepared.linearised, prepared.network
        reached = forward(network, prepared.values, ball, everywhere=False, dense=False)
        moved = telescope(network, at, reached, ball)
        entries, change = moved.entries.value[0], float(moved.change)
        into.add(self.name, gradients_within(at.gradient[0], entries, change))


class Moved(NamedTuple):
    """How far a gradient moves: ``change`` in l2, and each of its ``entries``, [1, ...]."""

    change: Upper
    entries: Upper

    def plus(self, other: Moved) -> Moved:
        """One move after another."""
        return Moved(self.change + other.change, self.entries + other.entries)

    def times(self, factor: Upper) -> Moved:
        """The move so many times as far."""
        return Moved(factor * self.change, factor * self.entries)

    def cut(self, other: Moved) -> Moved:
        """The smaller of two bounds of one move, entry by entry."""
        return Moved(self.change.cut(other.change), self.entries.cut(other.entries))


class _Known(NamedTuple):
    """What later gates need of a gate, all l2 or spectral norms.

    Args:
        remainder: At least ``||e_l||``.
        turn: At least ``||D_l' - D_l||``.
        jacobian: At least ``||J_0l'||``.
    """

    remainder: Upper
    turn: Upper
    jacobian: Upper


class _Part(NamedTuple):
    """What a gate adds to the gradient's change.

    Args:
        origin: The gate whose curvature ``J^T C J`` counts for it; ``None`` where none does.
        plain: All of it, by the norm of the Jacobian.
        rest: The second order: all but the curvature's part.
        growth: At least the quotient of its second derivatives in the ball and C.
        turning: At least t: that of their change T - W and C.
    """

    origin: int | None
    plain: Moved
    rest: Moved
    growth: Upper
    turning: Upper


def telescope(network: Network, at: Linearised, reached: Forward, ball: Ball) -> Moved:
    """Bound the change of the gradient over the ball.

    Args:
        network: As traced.
        at: The network linearised at x.
        reached: Bounds of its values over the ball by other means, which cut those found here.
        ball: Around x.
    """
    known: dict[int, _Known] = {}
    parts: list[_Part] = []
    for number, jacobians in at.jacobians.items():
        node = network.nodes[number]
        gate, before = node.part, node.parents[0]
        assert isinstance(gate, Gate)
        argument = _argument(reached, before, jacobians, known, ball)
        derivative = derivative_move(gate, argument, at.slopes[number])
        turned = _turned(jacobians, known)
        known[number] = _Known(
            remainder(gate, argument, derivative),
            turn(gate, argument, derivative),
            _jacobian(reached.reach[before], jacobians, turned),
        )
        if number in at.pulls:
            j = known[number].jacobian
            parts.append(_part(number, gate, at, argument, derivative, jacobians, turned, j))
    radius = Upper(ball.l2(reached.values[0].numel()))
    return _summed(parts, at, radius)


def _argument(
    reached: Forward,
    before: int,
    jacobians: dict[int, Jacobian],
    known: dict[int, _Known],
    ball: Ball,
) -> ArgumentMove:
    """``z_m' - z_m = J_0m d + sum_{l<m} J_lm e_l``, cut by what interval arithmetic found."""
    z, off, seen = reached.values[before], reached.rounding[before], reached.reach[before]
    entries, size, drift = Upper(torch.zeros_like(z)), Upper(0.0), Upper(0.0)
    for source, j in jacobians.items():
        if source == 0:
            rows = ball.norm.dual_of(l2=j.rows, l1=j.sums)
            entries = entries + Upper(rows) * ball.radius
            size = size + Upper(j.norm) * ball.l2(reached.values[0].numel())
        else:
            e = known[source].remainder
            entries = entries + Upper(j.rows) * e
            drift = drift + Upper(j.norm) * e
    entries = entries.cut(torch.maximum(-seen.change.low, seen.change.high))
    entries = Upper(torch.where(z.isinf(), 0.0, entries.value))  # padding
    size = (size + drift).cut(seen.ball, entries.norm())
    box = Range(z - entries.value - off, z + entries.value + off)
    return ArgumentMove(z, off, entries, size, drift, box)


def _turned(jacobians: dict[int, Jacobian], known: dict[int, _Known]) -> Upper:
    """``||sum_{l<m} J_lm (D_l' - D_l) J_0l'||``: the Jacobian's own move."""
    turned = Upper(0.0)
    for source, j in jacobians.items():
        if source != 0:
            turned = turned + Upper(j.norm) * known[source].turn * known[source].jacobian
    return turned


def _jacobian(seen: Reach, jacobians: dict[int, Jacobian], turned: Upper) -> Upper:
    """``||J_0m'||``: that at x and its move, cut by what interval arithmetic found."""
    at_x = Upper(jacobians[0].norm if 0 in jacobians else 0.0)
    return (at_x + turned).cut(seen.jacobian)


def _part(
    number: int,
    gate: Gate,
    at: Linearised,
    argument: ArgumentMove,
    derivative: DerivativeMove,
    jacobians: dict[int, Jacobian],
    turned: Upper,
    jacobian: Upper,
) -> _Part:
    """``J_0l'^T (D_l' - D_l)^T r_l``, as a whole and split into the curvature and the rest."""
    pull = Upper(at.pulls[number])
    r = Upper(gate.spread(pull.value))
    steepest, lost = (derivative.bends * pull).largest(), (derivative.slack * r).norm()
    # Once more the slack: the gradient at x itself is that of the exact slopes.
    made = (derivative.away * r).norm().cut(steepest * argument.size + lost) + lost
    columns = Upper(jacobians[0].columns if 0 in jacobians else torch.zeros_like(at.noise))
    plain = Moved(jacobian * made, (columns + turned).cut(jacobian) * made)
    origin, unknown = at.origins.get(number), Upper(math.inf)
    if origin is None or origin not in at.curvatures:
        return _Part(None, plain, Moved(unknown, plain.entries), unknown, unknown)
    growth, turning = _weights(number, gate, at, argument, r)
    own, start = steepest * argument.drift + lost * 2.0, Upper(jacobians[0].norm)
    rest = Moved(start * own + turned * made, columns.cut(start) * own + turned * made)
    return _Part(origin, plain, rest, growth, turning)


def _weights(
    number: int, gate: Gate, at: Linearised, argument: ArgumentMove, r: Upper
) -> tuple[Upper, Upper]:
    """The factors of C that second derivatives in the ball, and their change, stay below."""
    c, z = at.weights[number], argument.z
    growth = (Upper(gate.curbs(argument.box)) * r).over(c).largest()
    uncertain = Upper(gate.spread(at.uncertain[number])) + r * (64 * EPS)
    shifts = Upper(gate.turns(z, argument.box).clamp(min=0)) * r
    shifts = shifts + Upper(gate.curbs(Range(z, z))) * uncertain
    return growth, shifts.over(c).largest()


def _summed(parts: list[_Part], at: Linearised, radius: Upper) -> Moved:
    """The change of the gradient in three ways; see ``docs/certificates.md``, Telescoping."""
    noise = Moved(Upper(at.noise).norm(), Upper(at.noise))
    unknown = Moved(Upper(math.inf), Upper(torch.full_like(at.noise, math.inf)))
    by_gate, by_hessian = noise, unknown
    if at.hessian is not None and all(part.turning.finite() for part in parts):
        by_hessian = noise.plus(Moved(Upper(at.hessian.norm), Upper(at.hessian.rows)).times(radius))
    for origin in dict.fromkeys(part.origin for part in parts):
        some = [part for part in parts if part.origin == origin]
        plain, rest = some[0].plain, some[0].rest
        for part in some[1:]:
            plain, rest = plain.plus(part.plain), rest.plus(part.rest)
        if origin is not None:
            n = Upper(at.curvatures[origin].norm)  # N and the columns of C^(1/2) J_0l
            columns = Upper(at.curvatures[origin].columns)
            once = Moved(n, n.sqrt() * columns).times(radius)
            growth = Upper(max(float(part.growth) for part in some))
            turning = Upper(max(float(part.turning) for part in some))
            if by_hessian.change.finite():
                by_hessian = by_hessian.plus(once.times(turning)).plus(rest)
            if growth.finite():  # where C is 0 for a kink, no multiple of it is enough
                plain = plain.cut(once.times(growth).plus(rest))
        by_gate = by_gate.plus(plain)
    return by_gate.cut(by_hessian)
