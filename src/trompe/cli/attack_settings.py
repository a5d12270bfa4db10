"""From the options of ``trompe attack`` to the arguments of ``trompe.manipulate``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from trompe.cli.parts import make_part
from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.explain import Method


def attack_options(
    *,
    method: Method,
    height: int,
    preset: str,
    objective: str,
    constraint: str | None,
    step: str | None,
    through: tuple[str, ...],
    explained: int | None,
    iterations: int | None,
    lr: float | None,
    prefactors: tuple[float, float] | None,
    beta_growth: tuple[float, float] | None,
    no_beta_growth: bool,
    smooth_pooling: float | None,
    keep_output: str,
    tolerance: float | None,
    redraw: bool | None,
    capture: str,
) -> dict[str, Any]:
    """The options of ``trompe.manipulate`` that the command's options stand for."""
    from trompe.attacks import Keep, preset_for
    from trompe.attacks.objectives import written_objective

    if no_beta_growth and beta_growth is not None:
        raise UsageError("give one of --beta-growth and --no-beta-growth")
    if lr is not None and step is not None:
        raise UsageError("give one of --lr and --step: --lr is short for --step adam:RATE")
    settings = preset_for(preset, method, height)
    changes: dict[str, Any] = {}
    if prefactors is not None:
        changes["prefactors"] = prefactors
    if smooth_pooling is not None:
        changes["pooling"] = smooth_pooling
    if no_beta_growth:
        changes["beta_start"] = None
    elif beta_growth is not None:
        changes["beta_start"], changes["beta_end"] = beta_growth
    if lr is not None:
        step = f"adam:{lr}"
    return {
        "preset": dataclasses.replace(settings, **changes),
        "objective": written_objective(objective, relative=settings.relative),
        "constraint": None if constraint is None else make_part("constraint", constraint),
        "step": None if step is None else make_part("step", step),
        "through": [make_part("channel", channel) for channel in through],
        "target": explained,
        "iterations": iterations,
        "keep_output": Keep(keep_output, tolerance),  # type: ignore[arg-type]  # click's choice
        "redraw": redraw,
        "capture": capture,
    }
