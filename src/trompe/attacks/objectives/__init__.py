"""What an attack makes of a map: one file per objective, found by name."""

from trompe.attacks.objectives.avoid import Avoid
from trompe.attacks.objectives.base import (
    DEFAULT_OBJECTIVE,
    Explain,
    Objective,
    objectives,
    takes_target,
    written_objective,
)
from trompe.attacks.objectives.mass_centre import MassCentre
from trompe.attacks.objectives.reach_map import ReachMap
from trompe.attacks.objectives.region import Region
from trompe.attacks.objectives.several import Several
from trompe.attacks.objectives.shift import Shift
from trompe.attacks.objectives.swap import Swap
from trompe.attacks.objectives.topk import Topk
from trompe.attacks.objectives.topk_margin import TopkMargin
from trompe.attacks.objectives.unlike import Unlike

__all__ = [
    "DEFAULT_OBJECTIVE",
    "Avoid",
    "Explain",
    "MassCentre",
    "Objective",
    "ReachMap",
    "Region",
    "Several",
    "Shift",
    "Swap",
    "Topk",
    "TopkMargin",
    "Unlike",
    "objectives",
    "takes_target",
    "written_objective",
]
