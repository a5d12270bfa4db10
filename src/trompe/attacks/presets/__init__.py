"""The settings of an attack, by preset and explanation method: one file per preset."""

from trompe.attacks.presets.base import DEFAULT_PRESET, Preset, preset_for, presets

__all__ = ["DEFAULT_PRESET", "Preset", "preset_for", "presets"]
