"""Manipulation: an imperceptible change of the input that changes its explanation."""

from trompe.attacks.adaptive import Adaptive, Attacked, adaptive_attack
from trompe.attacks.channels import Channel, Identity, channels
from trompe.attacks.constraints import (
    Ball,
    Constraint,
    L2Ball,
    LInfBall,
    ValidImage,
    constraints,
)
from trompe.attacks.fresh_draws import FreshDraws, fresh_draws
from trompe.attacks.keep import Keep
from trompe.attacks.manipulation import manipulate
from trompe.attacks.objectives import Objective, ReachMap, TopkMargin, Unlike, objectives
from trompe.attacks.observation import Observation
from trompe.attacks.presets import Preset, preset_for, presets
from trompe.attacks.query_attack import query_attack
from trompe.attacks.side_by_side import SideBySide
from trompe.attacks.steps import Adam, Apgd, ScaledAdam, Signed, Step, Stepper, steps
from trompe.attacks.universal import manipulate_all
from trompe.attacks.universal_result import Universal

__all__ = [
    "Adam",
    "Adaptive",
    "Apgd",
    "Attacked",
    "Ball",
    "Channel",
    "Constraint",
    "FreshDraws",
    "Identity",
    "Keep",
    "L2Ball",
    "LInfBall",
    "Objective",
    "Observation",
    "Preset",
    "ReachMap",
    "ScaledAdam",
    "SideBySide",
    "Signed",
    "Step",
    "Stepper",
    "TopkMargin",
    "Universal",
    "Unlike",
    "ValidImage",
    "adaptive_attack",
    "channels",
    "constraints",
    "fresh_draws",
    "manipulate",
    "manipulate_all",
    "objectives",
    "preset_for",
    "presets",
    "query_attack",
    "steps",
]
