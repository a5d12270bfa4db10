"""Global bounds from layer norms alone: they hold for every point and every target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trompe.certificates.gates import Gate
from trompe.certificates.linear_maps import LinearMap
from trompe.certificates.network import Network, Node
from trompe.certificates.upper import WIDEN


class Global(NamedTuple):
    """At least ``||grad g||`` and at least ``||H||``, anywhere."""

    lipschitz: float
    curvature: float


def without_cancellation(network: Network, values: list[Tensor], target: int) -> Tensor:
    """The gradient's sum over all paths with every term positive, [1, ...].

    Rounding errors of an evaluation are a few units in the last place of this, entry by entry.

    Args:
        network: as traced.
        values: of its nodes at x.
        target: index of the logit.
    """
    seed = torch.zeros_like(values[-1])
    seed[0, target] = 1.0

    def visit(_: int, node: Node, pull: Tensor) -> Tensor:
        if isinstance(node.part, Gate):
            return node.part.slope(values[node.parents[0]]) * node.part.spread(pull)
        if isinstance(node.part, LinearMap):
            return node.part.magnitude.transpose(pull)
        return pull

    found = network.walk_back({len(network.nodes) - 1: seed}, visit)
    return torch.zeros_like(values[0]) if found is None else found


class _Derivative(NamedTuple):
    """A derivative by a node's output, as a known vector and a norm of all the rest."""

    vector: Tensor | None
    norm: float

    @property
    def size(self) -> float:
        """At least its l2 norm."""
        return self.norm + (float(self.vector.norm()) if self.vector is not None else 0.0)


def _joined(one: _Derivative, other: _Derivative) -> _Derivative:
    known = [part.vector for part in (one, other) if part.vector is not None]
    vector = known[0] + known[1] if len(known) == 2 else known[0] if known else None
    return _Derivative(vector, one.norm + other.norm)


def layer_bounds(
    network: Network, target: int, shape: torch.Size, size: Callable[[LinearMap], float]
) -> Global:
    """Bounds of the gradient and of the Hessian of logit ``target``, from norms of the layers.

    ``||H|| <= sum_l max|s''| N_l^2 R_l`` with N_l the product of the norms before the gate l and
    R_l that of those after it (Dombrowski et al. 2019, Theorem 1; Singla and Feizi 2020). Their
    ``b C`` is this sum with Frobenius norms and ``s'' <= b / 4``.

    Args:
        network: as traced.
        target: index of the logit.
        shape: of the logits, [1, K].
        size: at least the spectral norm of a layer, such as its Frobenius norm.
    """
    before: list[float] = []
    for node in network.nodes:
        norm = sum(before[p] for p in node.parents) if node.parents else 1.0
        if isinstance(node.part, LinearMap):
            norm *= size(node.part)
        before.append(norm * WIDEN)
    seed = torch.zeros(shape, dtype=torch.float64)
    seed[0, target] = 1.0
    curvature = 0.0

    def visit(_: int, node: Node, after: _Derivative) -> _Derivative:
        nonlocal curvature
        if isinstance(node.part, Gate):
            # Down to the last gate the derivative is one known vector; only then norms multiply.
            if after.size > 0:
                curvature += WIDEN * node.part.bend * before[node.parents[0]] ** 2 * after.size
            return _Derivative(None, after.size)
        if isinstance(node.part, LinearMap):
            vector = None if after.vector is None else node.part.transpose(after.vector)
            return _Derivative(vector, after.norm * size(node.part) * WIDEN)
        return after

    start = {len(network.nodes) - 1: _Derivative(seed, 0.0)}
    found = network.walk_back(start, visit, _joined) or _Derivative(None, 0.0)
    return Global(WIDEN * found.size, curvature if not math.isnan(curvature) else math.inf)
