"""Layer norm, group norm, and batch norm that is not folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp
from trompe.rules.passing import stabilised


def _centring(
    share: Tensor, x: Tensor, weight: Tensor | None, dims: Sequence[int], eps: float
) -> Tensor:
    """``x J^T share`` for ``(x - mean) / std * weight`` with the std held constant."""
    variance = x.var(dim=tuple(dims), correction=0, keepdim=True)
    scaled = share if weight is None else share * weight
    scaled = scaled * torch.rsqrt(variance + eps)
    return x * (scaled - scaled.mean(dim=tuple(dims), keepdim=True))


def _share(relevance: Tensor, op: OpCall, epsilon: float) -> Tensor:
    """The relevance over what the normalisation makes, its bias included."""
    out, factor = op.notes.outcome or (op.out, 1.0)
    share = relevance / stabilised(out, epsilon)
    return share if isinstance(factor, float) and factor == 1 else share * factor


@dataclass(frozen=True)
class LayerNorm:
    """The epsilon rule of ``(x - mean) w / std + b``, its std a constant (proposition 3.4).

    Args:
        epsilon: added to denominators, with their sign.
    """

    epsilon: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        x = op.edges[0][1]
        share = _share(relevance, op, self.epsilon)
        dims = range(-len(op.argument(1, "normalized_shape")), 0)
        eps = op.argument(4, "eps", 1e-5)
        return [_centring(share, x, op.argument(2, "weight"), dims, eps)]


@dataclass(frozen=True)
class GroupNorm:
    """As ``LayerNorm``, over the channels of a group and all places.

    Args:
        epsilon: added to denominators, with their sign.
    """

    epsilon: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        x = op.edges[0][1]
        groups = op.argument(1, "num_groups")
        weight: Tensor | None = op.argument(2, "weight")
        share = _share(relevance, op, self.epsilon)
        if weight is not None:
            share = share * weight.view(-1, *[1] * (x.dim() - 2))
        grouped = x.unflatten(1, (groups, -1))
        eps = op.argument(4, "eps", 1e-5)
        out = _centring(
            share.unflatten(1, (groups, -1)), grouped, None, range(2, grouped.dim()), eps
        )
        return [out.flatten(1, 2)]


@dataclass(frozen=True)
class BatchNorm:
    """Batch norm with running statistics: the epsilon rule of ``a x + c``, unless it is folded.

    Args:
        epsilon: added to denominators, with their sign.
    """

    epsilon: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        slope = op.notes.slope
        if op.notes.folded:
            return [relevance]
        if slope is None:
            place = op.place or f"call {op.index}"
            raise UnsupportedOp(op.name, place, "lrp", "uses the statistics of the batch: no rule")
        x = op.edges[0][1]
        factor = slope.view(-1, *[1] * (x.dim() - 2))
        return [x * factor * _share(relevance, op, self.epsilon)]


IDENTICAL = (F.rms_norm, F.normalize, F.local_response_norm)
"""Normalisations through which relevance passes unchanged (proposition 3.4)."""
