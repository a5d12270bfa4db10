"""Where a manipulated image must stay: one file per constraint, found by name."""

from trompe.attacks.constraints.base import Ball, Constraint, constraints
from trompe.attacks.constraints.l2 import L2Ball
from trompe.attacks.constraints.linf import LInfBall
from trompe.attacks.constraints.valid_image import ValidImage

__all__ = ["Ball", "Constraint", "L2Ball", "LInfBall", "ValidImage", "constraints"]
