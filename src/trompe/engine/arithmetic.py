"""The names under which arithmetic is called: PyTorch's functions, tensors' methods, operators.

Whatever reads a record by name takes its names from here, so that no reader misses one.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_HOMES = (torch, F, Tensor, torch._C._nn, torch.special, torch.linalg)


def functions(names: str) -> frozenset[Any]:
    """All functions of these names: of torch, of tensors, of modules' functional forms."""
    return frozenset(
        f for name in names.split() for home in _HOMES if callable(f := getattr(home, name, None))
    )


ADDITIONS = functions("add __add__ __radd__")
"""Residual connections."""

DIFFERENCES = functions("sub subtract __sub__")
REVERSED_DIFFERENCES = functions("rsub __rsub__")
"""The second argument minus the first."""

NEGATIONS = functions("neg negative __neg__")

FACTORS = functions("mul multiply __mul__ __rmul__") | {operator.mul}
"""Elementwise products."""

QUOTIENTS = functions("div divide true_divide __truediv__")
"""The first argument over the second."""
