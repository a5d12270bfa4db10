"""Models that lie: how explanations are tampered with in the model, and how that is found."""

from trompe.tampering.base import Aim, Tampering, tamperings
from trompe.tampering.comparison import Comparison, compare
from trompe.tampering.fooling import FooledModel, Judged, fool, fooled_method, judge
from trompe.tampering.subspace import OffTheData

__all__ = [
    "Aim",
    "Comparison",
    "FooledModel",
    "Judged",
    "OffTheData",
    "Tampering",
    "compare",
    "fool",
    "fooled_method",
    "judge",
    "tamperings",
]
