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
stay small.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trompe.certificates.forward import EPS, Ball, Forward
from trompe.certificates.gates import Gate, Range
from trompe.certificates.linear_maps import WIDEN
from trompe.certificates.linearised import Linearised
from trompe.certificates.network import Network


class Moved(NamedTuple):
    """The gradient's change: at most ``change`` in l2, and ``entries`` in each entry, [1, ...]."""

    change: float
    entries: Tensor


class _Gate(NamedTuple):
    """What is known of a gate in the ball.

    Args:
        remainder: at least the l2 norm of e_l.
        turn: at least the spectral norm of D_l' - D_l.
        jacobian: at least that of J_0l'.
    """

    remainder: float
    turn: float
    jacobian: float


class _Part(NamedTuple):
    """What a gate adds to the gradient's change.

    Args:
        origin: the gate whose curvature counts for it; ``None`` where none does.
        plain: all of it, by the norm of the Jacobian.
        rest: all but the curvature's part.
        growth: at least the quotient of its weights in the ball and at x.
        turning: at least that of their change and what they are at x.
    """

    origin: int | None
    plain: Moved
    rest: Moved
    growth: float
    turning: float


def telescope(network: Network, at: Linearised, reached: Forward, ball: Ball) -> Moved:
    """Bound the change of the gradient over the ball.

    Args:
        network: as traced.
        at: the network linearised at x.
        reached: bounds of its values over the ball by other means, which cut those found here.
        ball: around x.
    """
    size = reached.values[0].numel()
    radius = ball.l2(size)
    known: dict[int, _Gate] = {}
    parts: list[_Part] = []
    change = float(at.noise.norm())
    entries = at.noise.clone()
    for number, jacobians in at.jacobians.items():
        node = network.nodes[number]
        gate, before = node.part, node.parents[0]
        assert isinstance(gate, Gate)
        z, off = reached.values[before], reached.rounding[before]
        # How far the argument moves, each entry and as a whole.
        moved, whole = torch.zeros_like(z), 0.0
        jacobian = turned = drift = 0.0
        for source, found in jacobians.items():
            if source == 0:
                rows = found.sums if ball.norm == "linf" else found.rows
                moved = moved + ball.radius * rows
                whole += found.norm * radius
                jacobian += found.norm
            else:
                moved = moved + known[source].remainder * found.rows
                drift += found.norm * known[source].remainder
                turned += found.norm * known[source].turn * known[source].jacobian
        seen = reached.reach[before]
        other = torch.maximum(-seen.change.low, seen.change.high)
        moved = torch.minimum(moved * WIDEN, other)
        moved = torch.where(z.isinf(), 0.0, moved)  # padding
        whole = min((whole + drift) * WIDEN, seen.ball, WIDEN * float(moved.norm()))
        # How far its derivative moves.
        box = Range(z - moved - off, z + moved + off)
        slope, slopes = at.slopes[number], gate.slopes(box)
        away = torch.maximum(slopes.high - slope, slope - slopes.low).clamp(0, 1) + 8 * EPS
        bends = gate.bends(box).clamp(max=gate.bend)
        # The slope at the computed argument against that at the exact one.
        slack = torch.where(bends.isinf(), 0.0, bends) * gate.gather(off.square()).sqrt()
        slack = gate.spread(slack) + torch.full_like(z, 8 * EPS)
        finite = torch.nan_to_num(bends, posinf=1e300)
        squares = gate.gather(moved.square())
        by_bend = finite / 2 * squares + gate.gather(slack * moved)
        remainders = torch.minimum(gate.gather(away * moved), by_bend)
        per_output = gate.gather(away.square()).sqrt()
        remainder = min(
            float(remainders.norm()),
            float(per_output.max()) * whole,
            float((finite / 2 * squares.sqrt()).max()) * whole
            + float(gate.gather(slack * moved).norm()),
        )
        turn = min(
            float(per_output.max()),
            float((finite * squares.sqrt() + gate.gather(slack.square()).sqrt()).max()),
        )
        jacobian = WIDEN * (jacobian + turned)
        if seen.jacobian < jacobian:
            jacobian = seen.jacobian
        known[number] = _Gate(WIDEN * remainder, WIDEN * turn, jacobian)
        pull = at.pulls.get(number)
        if pull is None:
            continue
        r = gate.spread(pull)
        steepest, lost = float((finite * pull).max()), float((slack * r).norm())
        # Once more the slack: the gradient at x itself is that of the exact slopes.
        made = min(float((away * r).norm()), steepest * whole + lost) + lost
        columns = jacobians[0].columns if 0 in jacobians else torch.zeros_like(entries)
        plain = Moved(
            WIDEN * jacobian * made,
            WIDEN * (columns + WIDEN * turned).clamp(max=jacobian) * made,
        )
        origin = at.origins.get(number)
        if origin is None or origin not in at.curvatures:
            parts.append(_Part(None, plain, Moved(math.inf, plain.entries), math.inf, math.inf))
            continue
        curbs = torch.where(r > 0, gate.curbs(box) * r, 0.0)
        growth = float(torch.where(curbs > 0, curbs / at.weights[number], 0.0).max())
        weights = at.weights[number]
        shifts = WIDEN * gate.turns(z, box) * r + gate.curbs(Range(z, z)) * gate.spread(
            at.uncertain[number] + 64 * EPS * pull
        )
        turning = float(torch.where(shifts > 0, shifts / weights, 0.0).max())
        own = steepest * drift + 2 * lost
        start = jacobians[0].norm
        rest = Moved(
            WIDEN * (start * own + WIDEN * turned * made),
            WIDEN * (columns.clamp(max=start) * own + WIDEN * turned * made),
        )
        parts.append(_Part(origin, plain, rest, WIDEN * growth, WIDEN * turning))
    whole, each = math.inf, torch.full_like(entries, math.inf)
    if at.hessian is not None and all(math.isfinite(part.turning) for part in parts):
        whole, each = at.hessian.norm * radius, at.hessian.rows * radius
    for origin in {part.origin for part in parts}:
        some = [part for part in parts if part.origin == origin]
        plain = _added([part.plain for part in some])
        if origin is not None:
            curvature, growth = at.curvatures[origin], max(part.growth for part in some)
            rest = _added([part.rest for part in some])
            once = Moved(curvature.norm * radius, curvature.norm**0.5 * radius * curvature.columns)
            turning = max(part.turning for part in some)
            if math.isfinite(whole):
                whole = whole + turning * once.change + rest.change
                each = each + turning * once.entries + rest.entries
            if math.isfinite(growth):
                plain = Moved(
                    min(plain.change, WIDEN * (growth * once.change + rest.change)),
                    torch.minimum(plain.entries, WIDEN * (growth * once.entries + rest.entries)),
                )
        change += plain.change
        entries = entries + plain.entries
    noise = at.noise
    change = min(change, float(noise.norm()) + WIDEN * whole)
    return Moved(WIDEN * change, WIDEN * torch.minimum(entries, noise + WIDEN * each))


def _added(parts: list[Moved]) -> Moved:
    change, entries = parts[0]
    for other in parts[1:]:
        change, entries = change + other.change, entries + other.entries
    return Moved(change, entries)
