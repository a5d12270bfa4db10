"""The records of operations that select: maxima of windows or dimensions, and comparisons."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine import surrogates as smooth
from trompe.engine.activations import ACTIVATIONS
from trompe.engine.operations import Function, Operation
from trompe.engine.pooling import smooth_max_pool2d

WHERE = Operation(
    "choice by a comparison",
    "choice",
    torch.where,
    lambda beta, x, bound, above, below: smooth.smooth_choice(x, beta, bound, above, below),
    smooth=(smooth.smooth_choice,),
)
HARD_SHRINK = Operation(
    "hard shrinkage",
    "choice",
    F.hardshrink,
    lambda beta, x, width: smooth.smooth_hardshrink(x, beta, width),
    smooth=(smooth.smooth_hardshrink,),
    also=(torch.hardshrink, Tensor.hardshrink),
)
MAX_POOL1D = Operation(
    "max pooling",
    "pooling",
    F.max_pool1d,
    lambda beta, x, *settings: smooth.smooth_max_pool1d(x, beta, *settings),
    smooth=(smooth.smooth_max_pool1d,),
    also=(torch.max_pool1d,),
)
MAX_POOL2D = Operation(
    "max pooling",
    "pooling",
    F.max_pool2d,
    lambda beta, x, *settings: smooth_max_pool2d(x, beta, *settings),
    smooth=(smooth_max_pool2d,),
    also=(torch.max_pool2d,),
)
MAX_POOL3D = Operation(
    "max pooling",
    "pooling",
    F.max_pool3d,
    lambda beta, x, *settings: smooth.smooth_max_pool3d(x, beta, *settings),
    smooth=(smooth.smooth_max_pool3d,),
    also=(torch.max_pool3d,),
)
ADAPTIVE_MAX_POOL = tuple(
    Operation(
        "adaptive max pooling",
        "pooling",
        function,
        lambda beta, x, size, dims=dims: smooth.smooth_adaptive_max_pool(x, beta, size, dims),
        smooth=(smooth.smooth_adaptive_max_pool,),
        also=also,
    )
    for dims, function, also in (
        (1, F.adaptive_max_pool1d, (torch.adaptive_max_pool1d,)),
        (2, F.adaptive_max_pool2d, ()),
        (3, F.adaptive_max_pool3d, ()),
    )
)
LARGEST = Operation(
    "maximum over a dimension",
    "pooling",
    torch.amax,
    lambda beta, x, dim, keepdim: smooth.smooth_amax(x, beta, dim, keepdim),
    smooth=(smooth.smooth_amax,),
    also=(Tensor.amax,),
)
SMALLEST = Operation(
    "minimum over a dimension",
    "pooling",
    torch.amin,
    lambda beta, x, dim, keepdim: smooth.smooth_amin(x, beta, dim, keepdim),
    smooth=(smooth.smooth_amin,),
    also=(Tensor.amin,),
)
LARGEST_AND_WHERE = Operation(
    "maximum over a dimension",
    "pooling",
    torch.max,
    lambda beta, x, *settings: smooth.smooth_max_and_where(x, beta, *settings),
    smooth=(smooth.smooth_amax,),
    also=(Tensor.max,),
)
SMALLEST_AND_WHERE = Operation(
    "minimum over a dimension",
    "pooling",
    torch.min,
    lambda beta, x, *settings: smooth.smooth_min_and_where(x, beta, *settings),
    smooth=(smooth.smooth_amin,),
    also=(Tensor.min,),
)

POOLINGS: tuple[Operation, ...] = (
    MAX_POOL1D,
    MAX_POOL2D,
    MAX_POOL3D,
    *ADAPTIVE_MAX_POOL,
)
"""Those of windows: a maximum over a dimension may be an activation, such as maxout."""

SELECTIONS: tuple[Operation, ...] = (
    WHERE,
    HARD_SHRINK,
    MAX_POOL1D,
    MAX_POOL2D,
    MAX_POOL3D,
    *ADAPTIVE_MAX_POOL,
    LARGEST,
    SMALLEST,
    LARGEST_AND_WHERE,
    SMALLEST_AND_WHERE,
)
"""All of them."""

OPERATIONS: tuple[Operation, ...] = (*ACTIVATIONS, *SELECTIONS)
"""All records."""

BY_FUNCTION: dict[Function, Operation] = {
    function: operation
    for operation in OPERATIONS
    if operation is not WHERE
    for function in operation.recorded
}
"""The record of each function that stands in a recorded pass (not smoothed)."""


def functions_of(*operations: Operation, smoothed: bool = True) -> tuple[Function, ...]:
    """What these operations are recorded as, and, unless ``smoothed`` is false, their stand-ins."""
    found: dict[Function, None] = {}
    for operation in operations:
        found.update(dict.fromkeys(operation.recorded))
        if smoothed:
            found.update(dict.fromkeys(operation.smooth))
    return tuple(found)
