"""Manipulation: an imperceptible change of the input that changes its explanation."""

from trompe.attacks.manipulation import manipulate
from trompe.attacks.presets import Preset, preset_for, presets

__all__ = ["Preset", "manipulate", "preset_for", "presets"]
