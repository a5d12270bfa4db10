"""Where a manipulated image must stay: one file per constraint, found by name."""

from trompe.attacks.constraints.base import Constraint, constraints
from trompe.attacks.constraints.linf_ball import LInfBall
from trompe.attacks.constraints.valid_image import ValidImage

__all__ = ["Constraint", "LInfBall", "ValidImage", "constraints"]
