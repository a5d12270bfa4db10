"""How far two outputs of a network are apart (Dombrowski et al. 2019, figures 10 and 11)."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.metrics.base import like, metric, pair


@metric
def softmax_l2(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Euclidean distance of the class probabilities.

    Args:
        logits_a: [B, K], before softmax.
        logits_b: the same shape.

    Returns:
        [B], within 0..sqrt(2).

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = (logits.softmax(dim=1) for logits in pair(logits_a, logits_b, dims=(2,)))
    return like(torch.linalg.vector_norm(first - second, dim=1), logits_a, logits_b)


@metric
def logit_l2(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Euclidean distance of the logits.

    Args:
        logits_a: [B, K], before softmax.
        logits_b: the same shape.

    Returns:
        [B], not negative.

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = pair(logits_a, logits_b, dims=(2,))
    return like(torch.linalg.vector_norm(first - second, dim=1), logits_a, logits_b)
