"""Recording a forward pass, walking it backwards with rules, and smoothing a network's kinks."""

from trompe.engine.adapt import Given, adapted, all_finite, holds_numbers
from trompe.engine.decompose import Decomposed
from trompe.engine.frozen import frozen
from trompe.engine.graph import explained
from trompe.engine.kinks import KinkReport, kinks
from trompe.engine.recording import record
from trompe.engine.smoothing import Smoothed, smooth
from trompe.engine.sweep import RuleSet, sweep, vjp
from trompe.engine.tape import OpCall, Tape

__all__ = [
    "Decomposed",
    "Given",
    "KinkReport",
    "OpCall",
    "RuleSet",
    "Smoothed",
    "Tape",
    "adapted",
    "all_finite",
    "explained",
    "frozen",
    "holds_numbers",
    "kinks",
    "record",
    "smooth",
    "sweep",
    "vjp",
]
