"""Bounds from what is within reach: the full ball at once, and the curvature summed up.

``grad g(x') - grad g(x)`` is the integral of ``H (x' - x)`` along the straight line. Its rate is
bounded by that on growing balls, each of which covers one more part of the line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.certificates.backward import Backward, backward, rates
from trompe.certificates.ball import Ball, ball
from trompe.certificates.bounds import Bounds, gradients_within
from trompe.certificates.forward import forward
from trompe.certificates.gates import Range
from trompe.certificates.prepared import Prepared
from trompe.certificates.upper import WIDEN

_STEPS = 8
"""Into so many balls the integral of the curvature is divided."""


@dataclass
class _Integral:
    """How far the gradient moves along any line from the centre, summed up so far.

    Args:
        change: In l2.
        entries: In each entry, of the image's shape.
    """

    change: float
    entries: Tensor

    def add(self, rate: float, by_entry: Tensor | None, length: float) -> None:
        """One more piece of ``length``, on which the gradient moves at most at these rates."""
        self.change += WIDEN * rate * length
        if by_entry is None:
            by_entry = torch.full((self.entries.numel(),), rate, dtype=torch.float64)
        self.entries = self.entries + WIDEN * by_entry.view_as(self.entries) * length


def bound_within_reach(
    name: str, prepared: Prepared, ball: Ball, into: Bounds, *, dense: bool
) -> None:
    """File what boxes and l2 balls of all values, slopes and Jacobians in the ball allow.

    Args:
        name: Of the method.
        prepared: The network at one image.
        ball: Around that image.
        into: Where the bounds are filed.
        dense: Carry exact Jacobians of all nodes, and the exact Hessian.
    """
    smooth = prepared.network.smooth
    nothing = torch.zeros_like(prepared.values[0][0])
    whole, across = _Integral(0.0, nothing), _Integral(0.0, nothing)
    steps = _STEPS if smooth else 1
    for step in range(1, steps + 1):
        result = _over(prepared, ball.shrunk(step / steps), dense)
        if smooth:
            _integrate(result, ball, ball.radius / steps, whole, across)
    gradient = result.gradient
    centre = gradient.exact[0]
    if not smooth:
        whole = _Integral(math.inf, torch.full_like(centre, math.inf))
    box = Range(gradient.change.low[0], gradient.change.high[0])
    found = gradients_within(centre, whole.entries, min(whole.change, gradient.ball), box)
    # Normals, heat maps and ranks do not see the part of the change along the gradient, a + 1
    # times as long at least: what remains, divided by that length, is the change that counts.
    along = found.l2 / max(float(centre.norm()), 1e-300)
    turned = None
    if smooth and dense and along < 0.999:
        stretch = WIDEN / (1 - along)
        turned = gradients_within(centre, across.entries * stretch, across.change * stretch)
    into.add(name, found, turned)
    into.curvature = min(into.curvature, _curvature(result, smooth, centre.numel()))


def _over(prepared: Prepared, part: Ball, dense: bool) -> Backward:
    reached = forward(prepared.network, prepared.values, part, everywhere=False, dense=dense)
    return backward(prepared.network, reached, prepared.target)


def _integrate(
    result: Backward, ball: Ball, length: float, whole: _Integral, across: _Integral
) -> None:
    """Add a piece of the line: all of the change, and what of it is across the gradient at x."""
    size = whole.entries.numel()
    rate, by_entry = rates(result.hessian, ball, size)
    whole.add(rate, by_entry, length)
    if result.hessian.exact is not None:
        normal = torch.nn.functional.normalize(result.gradient.exact.flatten(), dim=0)
        rate, by_entry = rates(result.hessian, ball, size, normal)
        across.add(rate, by_entry, length)


def _curvature(result: Backward, smooth: bool, size: int) -> float:
    curvature = result.hessian.norm
    if smooth and result.hessian.exact is not None:
        curvature = min(curvature, rates(result.hessian, ball(0.0), size)[0])
    return curvature
