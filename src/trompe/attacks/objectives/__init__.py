"""What an attack minimises: one file per objective, found by name."""

from trompe.attacks.objectives.base import Objective, objectives
from trompe.attacks.objectives.reach_map import ReachMap

__all__ = ["Objective", "ReachMap", "objectives"]
