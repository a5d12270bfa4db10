"""The parts of an audit's attacks: settings and objective, made from the names in the run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from trompe.attacks.constraints import constraints
from trompe.attacks.objectives import Objective, written_objective
from trompe.attacks.presets import Preset, preset_for
from trompe.audit.settings import Settings
from trompe.explain import Method
from trompe.written_part import made


@dataclass(frozen=True)
class AttackParts:
    """What the attacks of one kind of cells are made of.

    Args:
        preset: their settings, with the run's own constraint in place of the preset's.
        objective: what becomes of the map, not yet prepared for images.
    """

    preset: Preset
    objective: Objective


def attack_parts(settings: Settings, preset: str, method: Method, height: int) -> AttackParts:
    """The parts of the attacks on one method with one preset.

    Args:
        settings: of the run.
        preset: its name.
        method: the explanation attacked.
        height: of the images, in pixels.

    Raises:
        UsageError: if a part is unknown: the module that registers it was not imported.
    """
    chosen = preset_for(preset, method, height)
    if settings.constraint is not None:
        chosen = dataclasses.replace(chosen, constraint=made(constraints, settings.constraint))
    objective = written_objective(settings.objective, relative=chosen.relative)
    chosen.check_objective(objective)
    return AttackParts(chosen, objective)
