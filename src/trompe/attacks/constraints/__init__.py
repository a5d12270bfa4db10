"""Where a manipulated image must stay: one file per constraint, found by name."""

from trompe.attacks.constraints.base import Ball, Constraint, constraints
from trompe.attacks.constraints.l1 import L1Ball
from trompe.attacks.constraints.l2 import L2Ball
from trompe.attacks.constraints.linf import LInfBall
from trompe.attacks.constraints.low_frequency import LowFrequency
from trompe.attacks.constraints.mask import Mask, Patch
from trompe.attacks.constraints.sparse import Sparse
from trompe.attacks.constraints.valid_image import ValidImage

__all__ = [
    "Ball",
    "Constraint",
    "L1Ball",
    "L2Ball",
    "LInfBall",
    "LowFrequency",
    "Mask",
    "Patch",
    "Sparse",
    "ValidImage",
    "constraints",
]
