"""Bounds from layer norms alone: the same curvature at every input, times the radius."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from trompe.certificates.backward import backward
from trompe.certificates.ball import Ball
from trompe.certificates.bounds import Bounds, gradients_within
from trompe.certificates.forward import forward
from trompe.certificates.layer_norms import layer_bounds
from trompe.certificates.linear_maps import LinearMap
from trompe.certificates.prepared import Prepared
from trompe.certificates.upper import WIDEN


def bound_everywhere(
    name: str,
    prepared: Prepared,
    ball: Ball,
    into: Bounds,
    size: Callable[[LinearMap], float],
    *,
    tighten: bool,
) -> None:
    """File what layer norms allow.

    Args:
        name: Of the method.
        prepared: The network at one image.
        ball: Around that image.
        into: Where the bounds are filed.
        size: At least the spectral norm of a layer.
        tighten: Also bound the curvature by a backward pass that keeps known derivatives.
    """
    network, values = prepared.network, prepared.values
    norms = layer_bounds(network, prepared.target, values[-1].shape, size)
    reached = forward(network, values, ball, everywhere=True, dense=False)
    result = backward(network, reached, prepared.target)
    centre = result.gradient.exact[0]
    curvature = min(norms.curvature, result.hessian.norm) if tighten else norms.curvature
    reach = WIDEN * ball.l2(centre.numel())
    change = curvature * reach if reach else 0.0
    change = min(change, norms.lipschitz + WIDEN * float(centre.norm()))
    into.add(name, gradients_within(centre, torch.full_like(centre, math.inf), change))
    into.curvature = min(into.curvature, curvature)
