"""The methods behind ``certify``: each gives the gradients that one image may take in a ball."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from trompe.certificates.backward import backward, rates
from trompe.certificates.forward import Ball, dense_is_small, forward
from trompe.certificates.gates import Range
from trompe.certificates.gradient_set import Gradients
from trompe.certificates.layer_norms import layer_bounds, without_cancellation
from trompe.certificates.linear_maps import WIDEN
from trompe.certificates.linearised import Linearised, cost, linearise
from trompe.certificates.network import Network
from trompe.certificates.telescope import telescope
from trompe.certificates.trace import trace
from trompe.errors import CertificateError, UsageError

_STEPS = 8
"""Into so many balls the integral of the curvature is divided."""
_ULPS = 64
"""Allowance for evaluations in x's own type, in its units in the last place."""


_SECONDS = 10**9
"""What ``linearise`` may cost beside the other methods of ``best``."""


class Prepared:
    """What the certificates of one image need of a network, whatever the radius.

    Args:
        model: as for ``certify``.
        x: [1, ...].
        target: class; by default the predicted one.

    Raises:
        CertificateError: if the model has an operation without bounds; it is named.
        UsageError: if there is no such class.
    """

    def __init__(self, model: nn.Module, x: Tensor, target: int | None = None) -> None:
        self.network = trace(model, x)
        self.values = self.network.values(x.detach().double().cpu())
        logits = self.values[-1]
        if logits.dim() != 2:
            raise CertificateError(f"the model returns {tuple(logits.shape)}: a classifier [B, K]")
        self.target = int(logits.argmax()) if target is None else target
        if not 0 <= self.target < logits.shape[1]:
            raise UsageError(
                f"target {target} does not fit: the model has {logits.shape[1]} classes"
            )
        self.rounding: Tensor | None = None
        if x.dtype != torch.float64:
            size = without_cancellation(self.network, self.values, self.target)[0]
            self.rounding = _ULPS * torch.finfo(x.dtype).eps * size

    @cached_property
    def cost(self) -> int:
        """Of ``linearised``."""
        return cost(self.network, self.values)

    @cached_property
    def linearised(self) -> Linearised:
        """The network linearised at x."""
        return linearise(self.network, self.values, self.target)


def every_bound(
    prepared: Prepared, *, radius: float, norm: str = "l2", patient: bool = False
) -> dict[str, dict[str, float]]:
    """What each method that applies gives for one image: method, quantity, bound.

    ``telescope`` is left out where it takes more than seconds, unless one is ``patient``.
    """
    ball = Ball(float(radius), norm)
    with torch.no_grad():
        found = certified(prepared, ball, "best")
        bounds = {**certified(prepared, ball, "frobenius").bounds, **found.bounds}
        if patient and "telescope" not in bounds:
            bounds |= certified(prepared, ball, "telescope").bounds
    return bounds


@dataclass
class Found:
    """The gradients that each method allows for one image."""

    target: int
    sets: dict[str, list[Gradients]] = field(default_factory=dict)
    curvature: float = math.inf
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    rounding: Tensor | None = None

    def add(self, name: str, gradients: Gradients, turned: Gradients | None = None) -> None:
        """File the gradients that a method allows, and if known a set that has their directions."""
        sets = [gradients] if turned is None else [gradients, turned]
        if self.rounding is not None:
            sets = [one.widened(self.rounding) for one in sets]
            gradients = sets[0]
        self.sets[name] = sets
        self.bounds[name] = {
            "gradient_l2": gradients.l2,
            "normal_l2": min(one.normal for one in sets),
            "heatmap_l1": min(one.heatmap for one in sets),
        }

    def winner(self, quantity: str) -> str:
        """The method with the smallest bound."""
        return min(self.bounds, key=lambda name: self.bounds[name][quantity])

    def best(self, quantity: str) -> float:
        """The smallest bound."""
        return self.bounds[self.winner(quantity)][quantity]

    def kept(self, k: int) -> int:
        """How many of the k largest pixels surely stay."""
        return max(one.kept(k) for sets in self.sets.values() for one in sets)


def certified(prepared: Prepared, ball: Ball, method: str) -> Found:
    """What the methods asked for give for one image; see ``certify``."""
    network, values = prepared.network, prepared.values
    found = Found(prepared.target, rounding=prepared.rounding)
    small = dense_is_small(network, values)
    if method == "jacobian" and not small:
        raise CertificateError(
            "method 'jacobian' holds the Jacobian of every layer, too much here: use 'telescope'"
        )
    if method in ("frobenius", "global", "best"):
        _global(found, network, values, ball, method)
    if method == "telescope" or (method == "best" and prepared.cost <= _SECONDS):
        _telescoped(found, prepared, ball)
    if method == "jacobian" or (method == "best" and small):
        _local(found, network, values, ball, dense=True)
    if method in ("interval", "best"):
        _local(found, network, values, ball, dense=False)
    return found


def _telescoped(found: Found, prepared: Prepared, ball: Ball) -> None:
    """Bounds from the network linearised at x."""
    at = prepared.linearised
    reached = forward(prepared.network, prepared.values, ball, everywhere=False, dense=False)
    moved = telescope(prepared.network, at, reached, ball)
    found.add("telescope", _set(at.gradient[0], moved.entries[0], moved.change))


def _global(found: Found, network: Network, values: list[Tensor], ball: Ball, method: str) -> None:
    """Bounds from layer norms; ``best`` needs no Frobenius norms, they are never smaller."""
    frobenius = method == "frobenius"
    bounds = layer_bounds(
        network,
        found.target,
        values[-1].shape,
        (lambda part: part.frobenius) if frobenius else (lambda part: part.norm),
    )
    everywhere = forward(network, values, ball, everywhere=True, dense=False)
    exact = backward(network, everywhere, found.target)
    centre = exact.gradient.exact[0]
    curvature = bounds.curvature
    if not frobenius:
        curvature = min(curvature, exact.hessian.norm)
    reach = WIDEN * ball.l2(centre.numel())
    change = curvature * reach if reach else 0.0
    change = min(change, bounds.lipschitz + WIDEN * float(centre.norm()))
    nothing = torch.full_like(centre, math.inf)
    found.add("frobenius" if frobenius else "global", _set(centre, nothing, change))
    found.curvature = min(found.curvature, curvature)


def _set(centre: Tensor, entries: Tensor, ball: float, box: Range | None = None) -> Gradients:
    """The gradients within a ball, at most ``entries`` away in each entry, and in a box."""
    # Rounding of the gradient at x itself, far below any bound of use.
    floor = 1e-12 * float(centre.abs().max())
    most = entries.clamp(max=ball) + floor
    low, high = -most, most
    if box is not None:
        low, high = torch.maximum(low, box.low), torch.minimum(high, box.high)
    return Gradients(centre, Range(low, high), ball * WIDEN + floor * math.sqrt(centre.numel()))


def _local(
    found: Found, network: Network, values: list[Tensor], ball: Ball, *, dense: bool
) -> None:
    """Bounds from what is within reach: the full radius at once, and the curvature summed up.

    ``grad g(x') - grad g(x)`` is the integral of ``H (x' - x)`` along the straight line; its rate
    is bounded by that on growing balls, each of which covers one more part of the line.
    """
    size = values[0].numel()
    steps = _STEPS if network.smooth else 1
    change, entries = 0.0, torch.zeros_like(values[0][0])
    across, across_entries = 0.0, torch.zeros_like(entries)
    for step in range(1, steps + 1):
        part = Ball(ball.radius * step / steps, ball.norm)
        reached = forward(network, values, part, everywhere=False, dense=dense)
        result = backward(network, reached, found.target)
        if network.smooth:
            rate, by_entry = rates(result.hessian, ball.norm, size)
            change += WIDEN * rate * ball.radius / steps
            if by_entry is None:
                by_entry = torch.full((size,), rate, dtype=torch.float64)
            entries = entries + WIDEN * by_entry.view_as(entries) * ball.radius / steps
            if result.hessian.exact is not None:
                normal = torch.nn.functional.normalize(result.gradient.exact.flatten(), dim=0)
                rate, by_entry = rates(result.hessian, ball.norm, size, normal)
                across += WIDEN * rate * ball.radius / steps
                if by_entry is not None:
                    by_entry = by_entry.view_as(entries)
                    across_entries = across_entries + WIDEN * by_entry * ball.radius / steps
    gradient = result.gradient
    centre = gradient.exact[0]
    if not network.smooth:
        change, entries = math.inf, torch.full_like(centre, math.inf)
        curvature = result.hessian.norm
    else:
        curvature = result.hessian.norm
        if result.hessian.exact is not None:
            curvature = min(curvature, rates(result.hessian, "l2", size)[0])
    box = Range(gradient.change.low[0], gradient.change.high[0])
    whole = _set(centre, entries, min(change, gradient.ball), box)
    # Normals, heat maps and ranks do not see the part of the change along the gradient, a + 1
    # times as long at least: what remains, divided by that length, is the change that counts.
    along = whole.l2 / max(float(centre.norm()), 1e-300)
    turned = None
    if network.smooth and dense and along < 0.999:
        stretch = WIDEN / (1 - along)
        turned = _set(centre, across_entries * stretch, across * stretch)
    found.add("jacobian" if dense else "interval", whole, turned)
    found.curvature = min(found.curvature, curvature)
