"""Global bounds from layer norms alone: they hold for every point and every target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trompe.certificates.gates import Gate
from trompe.certificates.linear_maps import WIDEN, LinearMap
from trompe.certificates.network import Network


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
    pulls: dict[int, Tensor] = {len(network.nodes) - 1: seed}
    for number in range(len(network.nodes) - 1, 0, -1):
        pull = pulls.pop(number, None)
        if pull is None:
            continue
        node = network.nodes[number]
        if isinstance(node.part, Gate):
            pull = node.part.slope(values[node.parents[0]]) * node.part.spread(pull)
        elif isinstance(node.part, LinearMap):
            pull = node.part.magnitude.transpose(pull)
        for parent in node.parents:
            pulls[parent] = pulls[parent] + pull if parent in pulls else pull
    return pulls.get(0, torch.zeros_like(values[0]))


def layer_bounds(
    network: Network, target: int, shape: torch.Size, size: Callable[[LinearMap], float]
) -> Global:
    """Bounds of the gradient and of the Hessian of logit ``target``, from norms of the layers.

    ``||H|| <= sum_l max|s''| N_l^2 R_l`` with N_l the product of the norms before the gate l and
    R_l that of those after it (PAPER.md, Theorem 1; Singla and Feizi 2020). The paper's ``b C`` is
    this sum with Frobenius norms and ``s'' <= b / 4``.

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
    # Down to the last gate the derivative is one known vector; only then norms multiply.
    vectors: dict[int, Tensor] = {len(network.nodes) - 1: seed}
    after: dict[int, float] = {}
    curvature = 0.0
    for number in range(len(network.nodes) - 1, 0, -1):
        node = network.nodes[number]
        vector, norm = vectors.pop(number, None), after.pop(number, 0.0)
        arrived = norm + (float(vector.norm()) if vector is not None else 0.0)
        if isinstance(node.part, Gate):
            bend = node.part.bend
            if arrived > 0:
                curvature += WIDEN * bend * before[node.parents[0]] ** 2 * arrived
            vector, norm = None, arrived
        elif isinstance(node.part, LinearMap):
            norm *= size(node.part) * WIDEN
            vector = None if vector is None else node.part.transpose(vector)
        for parent in node.parents:
            if vector is not None:
                known = vectors.get(parent)
                vectors[parent] = vector if known is None else known + vector
            after[parent] = after.get(parent, 0.0) + norm
    last = vectors.get(0)
    lipschitz = after.get(0, 0.0) + (float(last.norm()) if last is not None else 0.0)
    return Global(WIDEN * lipschitz, curvature if not math.isnan(curvature) else math.inf)
