"""The registry of metrics, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.registry import Registry

Metric = Callable[..., Tensor]
"""``metric(a, b) -> [B]``: one number per image, in the dtype of the arguments."""

metrics: Registry[Metric] = Registry("metric", "trompe.metrics")

_Function = TypeVar("_Function", bound=Metric)


def metric(function: _Function) -> _Function:
    """File ``function`` in the registry of metrics under its own name (a decorator)."""
    metrics.register(function.__name__)(function)
    return function


def pair(a: Tensor, b: Tensor, dims: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Check that ``a`` and ``b`` can be compared, and return them in double precision.

    Double, because a heat map of 224 x 224 pixels has entries of about 2e-5, whose products are
    at the edge of what float32 resolves next to 1.

    Args:
        a: [B, ...].
        b: the same shape, on the same device.
        dims: the numbers of dimensions the metric is defined for; None means two or more.

    Returns:
        Both as float64.

    Raises:
        UsageError: if they are no tensors, or differ in shape or device.
    """
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, Tensor):
            raise UsageError(f"metric: {name} is a {type(value).__name__}: give a torch.Tensor")
    if a.shape != b.shape:
        raise UsageError(
            f"metric: cannot compare the shapes {tuple(a.shape)} and {tuple(b.shape)}: give two "
            "tensors of one shape [B, ...]"
        )
    if a.device != b.device:
        raise UsageError(f"metric: one tensor is on {a.device}, the other on {b.device}: move one")
    fits = a.dim() >= 2 if dims is None else a.dim() in dims
    if not fits or a[:1].numel() == 0 < a.shape[0]:
        wanted = "2 or more" if dims is None else " or ".join(map(str, dims))
        raise UsageError(
            f"metric: the shape {tuple(a.shape)} does not fit: give {wanted} dimensions, the first "
            "of them the batch, and no empty image"
        )
    return a.double(), b.double()


def like(value: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``value`` [B] in the dtype of the arguments, at least float32 (integers give float32)."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return value.to(dtype)
