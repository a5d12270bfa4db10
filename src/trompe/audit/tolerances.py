"""When two numbers, or two maps, of a run and of its verification agree."""

from __future__ import annotations

import math

from torch import Tensor

from trompe.metrics import linf

#: Relative to the larger of the two numbers and 1. What follows from arrays is the same anywhere
#: but for rounding; what the model computes anew may be rounded otherwise on another machine.
ROUNDING, TOLERANCE = 1e-5, 2e-3
#: Largest difference of a recomputed map, as a share of its maximum.
MAP_TOLERANCE = 0.01


def same(a: float | None, b: float | None, tolerance: float) -> bool:
    """Whether two numbers agree; one that is undefined is ``None`` or not finite."""
    first, second = (None if v is None or not math.isfinite(v) else v for v in (a, b))
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)


def difference(heat: Tensor, kept: Tensor) -> float:
    """The largest difference of a map from the one that is kept, as a share of its maximum."""
    return float(linf(heat, kept)) / max(float(kept.max()), 1e-30)
