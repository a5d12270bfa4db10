"""Manipulation: an imperceptible change of the input that changes its explanation."""

from trompe.attacks.adaptive import Adaptive, Attacked, Similarity, adaptive_attack
from trompe.attacks.manipulation import manipulate
from trompe.attacks.presets import Preset, preset_for, presets

__all__ = [
    "Adaptive",
    "Attacked",
    "Preset",
    "Similarity",
    "adaptive_attack",
    "manipulate",
    "preset_for",
    "presets",
]
