"""How an attack moves along a gradient: one file per kind of step, found by name."""

from trompe.attacks.steps.adam import Adam
from trompe.attacks.steps.apgd import Apgd
from trompe.attacks.steps.base import Heeding, Step, Stepper, steps
from trompe.attacks.steps.scaled_adam import ScaledAdam
from trompe.attacks.steps.signed import Signed

__all__ = ["Adam", "Apgd", "Heeding", "ScaledAdam", "Signed", "Step", "Stepper", "steps"]
