"""What is said, once, of a map that is worth less than it looks."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from trompe.engine.tape import Faint

_log = logging.getLogger("trompe")

EXPLODED = 1e6
"""From how many times what was shared out a map's relevance is called exploded.

Of eleven torchvision networks with random weights, ten hold 11 times as much at most, Swin v2 under
``epsilon_plus`` 6e13 times.
"""


def say_faint(faint: Faint) -> None:
    """Say, once, that relevance is absorbed where activations are as small as what is added."""
    if not faint.said:
        faint.said = True
        _log.warning(
            "the signal nearly vanishes: the activations of %s (call %d) are at most %.0e, and "
            "what is added to denominators (1e-9 or 1e-6) absorbs relevance there: the map is "
            "worth nothing unless the weights are scaled up",
            faint.name,
            faint.index,
            faint.size,
        )


def say_gradient(name: str) -> bool:
    """Say that a map is the gradient's, since the model has nothing that the method changes."""
    _log.warning(
        "the model has no ReLU, at which alone this method (%s) differs from the gradient: the "
        "map is the gradient's",
        name,
    )
    return True


def growth(start: Tensor, relevance: Tensor) -> float:
    """How many times the relevance at the output the input's amounts to, at most: sums of |R|.

    Args:
        start: the relevance at the output, [B, K].
        relevance: of the input, [B, ...].
    """

    def total(tensor: Tensor) -> Tensor:  # without a change of its layout in memory
        return tensor.detach().abs().sum(dim=tuple(range(1, tensor.dim())))

    given, arrived = total(start), total(relevance)
    return float(torch.where(given > 0, arrived / given, 0).max())


def say_exploded(name: str, times: float) -> bool:
    """Say that relevance grew beyond all measure, since denominators nearly vanish."""
    _log.warning(
        "relevance grows %.0e-fold on its way through the model (%s): denominators nearly vanish, "
        "and the map is worth nothing; choose another composite, or 'gradient'",
        times,
        name,
    )
    return True


def say_held(copies: int) -> bool:
    """Say that the graphs of all copies are held, for weights that require grad."""
    _log.warning(
        "the model's weights require grad, so the map holds the graphs of all %d masked copies in "
        "memory: if their gradients are not wanted, explain under torch.no_grad()",
        copies,
    )
    return True
