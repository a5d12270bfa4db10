"""What an attack makes of a map: one file per objective, found by name."""

from trompe.attacks.objectives.base import Explain, Objective, objectives
from trompe.attacks.objectives.reach_map import ReachMap
from trompe.attacks.objectives.topk_margin import TopkMargin
from trompe.attacks.objectives.unlike import Unlike

__all__ = ["Explain", "Objective", "ReachMap", "TopkMargin", "Unlike", "objectives"]
