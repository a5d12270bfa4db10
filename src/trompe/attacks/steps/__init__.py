"""How an attack moves along a gradient: one file per kind of step, found by name."""

from trompe.attacks.steps.adam import Adam
from trompe.attacks.steps.apgd import Apgd
from trompe.attacks.steps.base import Heeding, Step, Stepper, steps
from trompe.attacks.steps.recolour import Recolour
from trompe.attacks.steps.scaled_adam import ScaledAdam
from trompe.attacks.steps.signed import Signed
from trompe.attacks.steps.spatial import Spatial
from trompe.attacks.steps.transform import Transform

__all__ = [
    "Adam",
    "Apgd",
    "Heeding",
    "Recolour",
    "ScaledAdam",
    "Signed",
    "Spatial",
    "Step",
    "Stepper",
    "Transform",
    "steps",
]
