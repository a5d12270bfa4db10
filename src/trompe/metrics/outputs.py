"""How far two outputs of a network are apart (Dombrowski et al. 2019, figures 10 and 11)."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.metrics.base import like, metric, pair
from trompe.outputs import Outputs


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


def output_change(before: Tensor, after: Tensor, outputs: Outputs) -> Tensor:
    """How far two outputs are apart on the scale of their meaning, [B].

    ``softmax_l2`` of classes and of a binary decision; the Euclidean distance of the labels'
    probabilities, or of the values themselves.

    Args:
        before: [B, K].
        after: the same shape.
        outputs: what they mean.
    """
    if outputs.meaning in ("labels", "value"):
        return logit_l2(outputs.probabilities(before), outputs.probabilities(after))
    return softmax_l2(before, after)
