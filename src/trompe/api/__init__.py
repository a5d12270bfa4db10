"""Whole pieces of work as functions: what the commands of the same names do, without files.

They take names where a notebook has names (of models, methods, photos and parts), and objects where
it has objects. The parts are the command line's.
"""

from trompe.api.many_images import audit, report
from trompe.api.one_attack import attack
from trompe.api.worst_case import robustness

__all__ = ["attack", "audit", "report", "robustness"]
