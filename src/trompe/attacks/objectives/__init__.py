"""What an attack makes of a map: one file per objective, found by name."""

from trompe.attacks.objectives.base import Explain, Objective, objectives
from trompe.attacks.objectives.reach_map import ReachMap

__all__ = ["Explain", "Objective", "ReachMap", "objectives"]
