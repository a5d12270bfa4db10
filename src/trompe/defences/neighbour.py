"""The worst neighbour of each image, as far as a few steps find it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trompe.attacks import LInfBall
from trompe.training import Batch


def worst_neighbour(
    batch: Batch, radius: float, steps: int, value: Callable[[Tensor], Tensor]
) -> Tensor:
    """The image of an l-infinity ball at which a value is largest (Madry et al. 2018).

    From a random one, by signs of the gradient, each step 2.5 times ``radius / steps``.

    Args:
        batch: The images in the middle.
        radius: Of the ball, pixel units.
        steps: How many.
        value: (images [B, ...]) -> what is to rise, any shape; its sum is differentiated.

    Returns:
        Valid images within the ball, [B, ...], without a graph.
    """
    ball, space = LInfBall(radius), batch.space
    reach = space.scale(radius, batch.x)
    x = ball.project(batch.x + reach * batch.even(), batch.x, space)
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(value(x).sum(), x)
        moved = x.detach() + 2.5 / steps * reach * slope.sign()
        x = ball.project(moved, batch.x, space)
    return x.detach()
