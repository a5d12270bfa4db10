"""The spellings of poolings: maxima and minima over windows and dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trompe.engine import selections as sel
from trompe.engine.masks import Memory
from trompe.engine.operations import Reading
from trompe.engine.spellings import maximum, minimum

Reader = Callable[..., "Reading | None"]


def _pool(operation: Any) -> Reader:
    def read(
        memory: Memory,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Reading | None:
        if return_indices:
            return None
        return operation.of(input, kernel_size, stride or None, padding, dilation, ceil_mode)

    return read


def _adaptive(operation: Any) -> Reader:
    def read(
        memory: Memory, input: Tensor, output_size: Any, return_indices: bool = False
    ) -> Reading | None:
        return None if return_indices else operation.of(input, output_size)

    return read


def _maxout(input: Tensor, dim: Any) -> bool:
    """Whether a maximum over these dimensions is an activation (maxout, ``stack([h, 0]).amax(0)``).

    Pooling goes over the last dimensions of feature maps, or leaves a number per channel. What else
    a maximum goes over are candidates, not places.
    """
    with torch._C.DisableTorchFunction():
        count = input.dim()
    dims = {d % count for d in ([dim] if isinstance(dim, int) else dim)}
    last = dims == set(range(count - len(dims), count))
    return 0 in dims or (count - len(dims) > 2 and not (last and count <= 4))


def _over(whole: Any, operation: Any, two: Reader) -> Reader:
    """``max(x)``, ``max(x, dim)`` or ``max(x, other)``, and likewise for ``min``."""

    def read(
        memory: Memory, input: Tensor, dim: Any = None, keepdim: bool = False, **more: Any
    ) -> Reading | None:
        other = more.get("other", dim)
        if isinstance(other, Tensor):
            return two(memory, input, other)
        if not input.is_floating_point():
            return None
        if dim is None:
            return Reading(whole, whole.function, (input, tuple(range(input.dim())), False))
        return operation.of(input, dim, keepdim)._replace(maxout=_maxout(input, dim))

    return read


def _along(operation: Any) -> Reader:
    def read(memory: Memory, input: Tensor, dim: Any = (), keepdim: bool = False) -> Reading | None:
        if not input.is_floating_point():
            return None
        if dim in ((), [], None):
            return operation.of(input, tuple(range(input.dim())), keepdim)
        return operation.of(input, dim, keepdim)._replace(maxout=_maxout(input, dim))

    return read


SPELLINGS: tuple[tuple[Reader, str], ...] = (
    (_pool(sel.MAX_POOL1D), "max_pool1d"),
    (_pool(sel.MAX_POOL2D), "max_pool2d"),
    (_pool(sel.MAX_POOL3D), "max_pool3d"),
    *(
        (_adaptive(operation), f"adaptive_max_pool{dims}d")
        for dims, operation in zip((1, 2, 3), sel.ADAPTIVE_MAX_POOL, strict=True)
    ),
    (_along(sel.LARGEST), "amax"),
    (_along(sel.SMALLEST), "amin"),
    (_over(sel.LARGEST, sel.LARGEST_AND_WHERE, maximum), "max"),
    (_over(sel.SMALLEST, sel.SMALLEST_AND_WHERE, minimum), "min"),
)
"""What reads the functions of each name."""
