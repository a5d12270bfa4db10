"""Activations that are curved by their name, and bent too sharply for the numbers they get.

``softplus(x, beta=1e6)``, ``x * sigmoid(1e5 * x)`` or ``logaddexp(1e5 * x, 0) / 1e5`` are a ReLU as
far as any derivative can tell: nearly everywhere they are straight.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

BEND = "sharp bend"
"""The name of such a kink."""

_BENDS = frozenset(
    f"aten::{name}"
    for name in (
        *("softplus", "sigmoid", "silu", "gelu", "mish", "tanh", "erf", "atan", "log_sigmoid"),
        *("log_sigmoid_forward", "special_expit", "special_ndtr", "special_log_ndtr"),
    )
)
"""Straight, or flat, but for a bend about as wide as 1."""
_PAIRS = frozenset({"aten::logaddexp", "aten::logaddexp2"})
_ROWS = frozenset({"aten::logsumexp", "aten::softmax", "aten::_softmax", "aten::_safe_softmax"})
"""Likewise in the distance from the largest number of a row to the next."""
_FAR = 1e3
"""So many times as wide as the bend, most numbers lie far off: no derivative sees it."""
_MASKED = -5e3
"""From here downwards numbers may be the mask of an attention, next to which any other is far."""


def far_off(x: Tensor) -> bool:
    """Whether most numbers lie far off a bend at 0 that is about as wide as 1."""
    return x.numel() > 0 and not x.is_meta and bool((x.abs() > _FAR).double().mean() > 0.5)


def bent(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an activation is bent so sharply, for the numbers it gets, that it has a kink."""
    name = func._schema.name
    name = name[:-1] if name.endswith("_") else name
    if name not in _BENDS and name not in _PAIRS and name not in _ROWS:
        return False
    x = args[0]
    if not isinstance(x, Tensor) or x.is_meta or not x.is_floating_point() or x.numel() < 4:
        return False
    x = x.detach()
    if name in _BENDS:
        width = args[1] if len(args) > 1 else kwargs.get("beta", 1)  # of softplus alone
        return far_off(x * float(width) if name == "aten::softplus" else x)
    if name in _PAIRS:
        return far_off(x - args[1].detach())
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    dim = dim[0] if isinstance(dim, (list, tuple)) and len(dim) == 1 else dim
    if not isinstance(dim, int) or x.dim() == 0 or x.shape[dim] < 2:
        return False
    first, second = x.topk(2, dim=dim).values.unbind(dim)
    return far_off((first - second)[second > _MASKED])
