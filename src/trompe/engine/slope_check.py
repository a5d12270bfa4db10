"""Is the gradient that autograd gives the gradient of the output? Tried by one small step.

Backward hooks that were left in a model, autograd functions with a derivative of their own choice
(straight-through estimators, reversed gradients) and values detached on the way make it another
one. No list of them is needed: along its gradient a model must rise as steeply as it says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHARES = (1e-2, 1e-3, 1e-4, 1e-5)
"""By how much a step changes the score, as a share of the largest output; one that agrees will do.

A network of kinks changes its slope on the way, the less the shorter the step.
"""
FARTHEST = 0.1
"""No step is longer than this share of the image: where that moves no output, nothing is told."""
APART = 0.4
"""Slopes that differ by more than this share of the larger one are of two functions.

Measured on the 42 networks of the table of architectures (random weights, single precision), at the
best step: 0.38 on shufflenet_v2_x0_5, 0.14 on googlenet, at most 0.02 on the others.
"""


def slope_found(logits: Tensor, start: Tensor, run: Callable[[Tensor], Tensor]) -> float:
    """The slope of the largest outputs along their gradient, as a share of what it says.

    Args:
        logits: of two images, [2, K], with their graph, which is kept.
        start: the images, [2, ...], a leaf that requires grad.
        run: the logits of images.

    Returns:
        1 where the gradient is right, up to ``APART``, or where nothing can be told: outputs that
        are not finite, or a gradient of zero for one image; infinity where it is zero for both,
        which are answered differently.
    """
    chosen = logits.detach().argmax(dim=1, keepdim=True)
    try:
        (gradient,) = torch.autograd.grad(
            logits.gather(1, chosen).sum(), start, retain_graph=True, materialize_grads=True
        )
    except RuntimeError as error:  # where a gradient is wanted, its failure is reported there
        if "memory" in str(error):
            raise
        return 1.0
    flat = gradient.flatten(1).double()
    norm = flat.norm(dim=1)
    before = logits.detach().double().gather(1, chosen).squeeze(1)
    size = logits.detach().double().abs().amax()
    if not bool(torch.isfinite(norm).all() & torch.isfinite(size)):
        return 1.0
    if not bool(norm.any()):
        first = logits.detach()[:, chosen[0, 0]]
        return 1.0 if bool(first[0] == first[1]) else torch.inf
    if not bool((norm > 0).all()):
        return 1.0
    best = 1.0
    nearest = torch.inf
    floor = 30 * torch.finfo(logits.dtype).eps
    reach = FARTHEST * norm * start.detach().flatten(1).double().norm(dim=1)
    for share in SHARES:
        rise = (share * size).clamp(max=reach)
        if bool((rise < floor * size).any()):
            break
        along = (flat * (rise / norm**2).unsqueeze(1)).view_as(start).to(start)
        with torch.no_grad():
            after = run(start.detach() + along).double().gather(1, chosen).squeeze(1)
        found = (after - before) / rise
        apart = float(((found - 1).abs() / found.abs().clamp(min=1)).max())
        if not apart >= nearest:
            nearest, best = apart, float(found[(found - 1).abs().argmax()])
        if apart <= APART:
            return 1.0
    return best
