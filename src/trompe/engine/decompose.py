"""Operations that PyTorch cannot differentiate twice, written out in operations that it can.

Two have no double backward: ``hardsigmoid`` (MobileNetV3) and fused attention (vision
transformers). Attention is moreover taken apart so that a rule can follow relevance through its
projections, its softmax and its products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    handle_torch_function,
    has_torch_function_unary,
)


def hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``clamp(x / 6 + 1 / 2, 0, 1)``, as ``torch.nn.functional.hardsigmoid``."""
    if has_torch_function_unary(input):
        return handle_torch_function(hard_sigmoid, (input,), input, inplace=False)
    return (input / 6 + 0.5).clamp(0, 1)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(q k^T scale + mask) v``, as ``scaled_dot_product_attention``.

    Args:
        query: [..., heads, L, E], and so are key [..., S, E] and value [..., S, V].
        key: see ``query``.
        value: see ``query``.
        attn_mask: added to the scores [..., L, S]; where boolean, ``True`` takes part.
        dropout_p: of the weights.
        is_causal: whether a place sees only those before it and itself.
        scale: of the scores, ``1 / sqrt(E)`` by default.
        enable_gqa: whether keys and values are repeated for groups of heads.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        hidden = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril().logical_not()
        scores = scores.masked_fill(hidden, -torch.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            hidden = ~attn_mask
            scores = scores.masked_fill(hidden, -torch.inf)
        else:
            hidden = attn_mask == -torch.inf
            scores = scores + attn_mask
        weights = _seeing(scores, hidden)
    else:
        weights = F.softmax(scores, dim=-1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)


def _seeing(scores: Tensor, hidden: Tensor) -> Tensor:
    """The softmax of scores; rows of which all is hidden are zero, as in PyTorch's own."""
    blind = hidden.all(dim=-1, keepdim=True)
    return F.softmax(scores.masked_fill(blind, 0.0), dim=-1).masked_fill(blind, 0.0)


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask whose ``True`` is hidden as one that is added; others as they are."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)


def _projected(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value times their thirds of the packed weight [3 E, E]."""
    if query is key and key is value:
        q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        return q, k, v
    biases = (None, None, None) if bias is None else bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b)
        for x, w, b in zip((query, key, value), weight.chunk(3), biases, strict=True)
    )
    return q, k, v


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As ``torch.nn.functional.multi_head_attention_forward``, in parts.

    Raises:
        NotImplementedError: for keys or values given from outside (``static_k``, ``static_v``).
    """
    if static_k is not None or static_v is not None:
        raise NotImplementedError("attention with static keys or values cannot be taken apart")
    batched = query.dim() == 3
    if not batched:
        alike = query is key and key is value
        query = query.unsqueeze(1)
        key, value = (query, query) if alike else (key.unsqueeze(1), value.unsqueeze(1))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    if in_proj_weight is not None and not use_separate_proj_weight:
        q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias)
    else:
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        assert q_proj_weight is not None  # nn.MultiheadAttention gives one or the other
        assert k_proj_weight is not None
        assert v_proj_weight is not None
        q = F.linear(query, q_proj_weight, biases[0])
        k = F.linear(key, k_proj_weight, biases[1])
        v = F.linear(value, v_proj_weight, biases[2])
    mask, padding = _additive(attn_mask, q), _additive(key_padding_mask, q)
    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.repeat(1, batch, 1)])
        v = torch.cat([v, bias_v.repeat(1, batch, 1)])
    if add_zero_attn:
        k = torch.cat([k, k.new_zeros(1, *k.shape[1:])])
        v = torch.cat([v, v.new_zeros(1, *v.shape[1:])])
    extra = k.shape[0] - key.shape[0]
    if mask is not None:
        mask = mask.unsqueeze(0) if mask.dim() == 2 else mask.unflatten(0, (batch, num_heads))
        mask = F.pad(mask, (0, extra)) if extra else mask
    if padding is not None:
        padding = (F.pad(padding, (0, extra)) if extra else padding)[:, None, None, :]
        mask = padding if mask is None else mask + padding

    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], batch, num_heads, -1).permute(1, 2, 0, 3)

    scores = torch.matmul(heads(q) / math.sqrt(width // num_heads), heads(k).transpose(-2, -1))
    if mask is not None:
        scores = scores + mask
    if mask is None or need_weights:
        weights = F.softmax(scores, dim=-1)
    else:
        weights = _seeing(scores, mask == -torch.inf)
    if training and dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    mixed = torch.matmul(weights, heads(v)).permute(2, 0, 1, 3).reshape(length, batch, width)
    out = F.linear(mixed, out_proj_weight, out_proj_bias)
    shown = None
    if need_weights:
        shown = weights.mean(dim=1) if average_attn_weights else weights
    if not batched:
        out, shown = out.squeeze(1), None if shown is None else shown.squeeze(0)
    return out, shown


def add_product(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``input + value tensor1 tensor2``, as ``torch.addcmul``."""
    product = tensor1 * tensor2
    return input + (product if value == 1 else product * value)


def add_matrix_product(
    input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta input + alpha first @ second``, as ``torch.addmm`` and ``torch.baddbmm``."""
    return weighted(torch.matmul(first, second), input, beta, alpha)


def weighted(product: Tensor, input: Tensor, beta: float, alpha: float) -> Tensor:
    """``beta input + alpha product``, without the factors that are 1 or 0."""
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (input if beta == 1 else input * beta)


SUBSTITUTES: dict[Callable[..., Any], Callable[..., Any]] = {F.hardsigmoid: hard_sigmoid}
"""What is run, and recorded, in place of a function of the same arguments."""

DECOMPOSITIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head_attention,
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), add_product),
    **dict.fromkeys((torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm), add_matrix_product),
}
"""What is run in place of a function, each part an operation of its own in the record."""


class Decomposed(TorchFunctionMode):
    """While active, everything that runs can be differentiated twice."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in DECOMPOSITIONS:
            with self:
                return DECOMPOSITIONS[func](*args, **(kwargs or {}))
        return SUBSTITUTES.get(func, func)(*args, **(kwargs or {}))


def decomposed() -> AbstractContextManager[Any]:
    """``Decomposed``, where it is not active already: every mode costs time in every call."""
    active = any(isinstance(mode, Decomposed) for mode in _get_current_function_mode_stack())
    return nullcontext() if active else Decomposed()
