"""How far two outputs of a network are apart (Dombrowski et al. 2019, figures 10 and 11)."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.metrics.base import like, metric, pair


@metric
def softmax_l2(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Euclidean distance of the class probabilities; of an only logit, of its two sigmoids.

    Args:
        logits_a: [B, K], before softmax.
        logits_b: the same shape.

    Returns:
        [B], within 0..sqrt(2).

    Raises:
        UsageError: if the shapes do not go together.
    """
    first, second = (_probabilities(one) for one in pair(logits_a, logits_b, dims=(2,)))
    return like(torch.linalg.vector_norm(first - second, dim=1), logits_a, logits_b)


def _probabilities(logits: Tensor) -> Tensor:
    """Of all classes; an only logit is that of a yes, beside which the logit of a no is 0."""
    if logits.shape[1] == 1:
        logits = torch.cat([logits, torch.zeros_like(logits)], dim=1)
    return logits.softmax(dim=1)


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
