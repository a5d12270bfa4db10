"""``trompe.manipulate`` with a preset's numbers changed one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

import trompe
from trompe.attacks import Adam, preset_for
from trompe.types import AttackResult


def manipulate(
    model: nn.Module,
    x: Tensor,
    target_map: Tensor | None = None,
    *,
    explainer: Any = "gradient",
    preset: Any = "paper",
    learning_rate: float | None = None,
    prefactors: tuple[float, float] | None = None,
    beta_growth: tuple[float, float] | str | None = "preset",
    pooling: float | None = None,
    **options: Any,
) -> AttackResult:
    """Attack with the settings of a preset and some of one's own, as ``replace`` puts them in."""
    if isinstance(preset, str):
        height = x.shape[-2] if x.dim() == 4 else 8
        method = explainer if isinstance(explainer, str) or callable(explainer) else "gradient"
        preset = preset_for(preset, method, height)
    changes: dict[str, Any] = {}
    if learning_rate is not None:
        changes["step"] = Adam(learning_rate)
    if prefactors is not None:
        changes["prefactors"] = prefactors
    if pooling is not None:
        changes["pooling"] = pooling
    if beta_growth is None:
        changes["beta_start"] = None
    elif not isinstance(beta_growth, str):
        changes["beta_start"], changes["beta_end"] = beta_growth
    settings = dataclasses.replace(preset, **changes)
    return trompe.manipulate(model, x, target_map, explainer=explainer, preset=settings, **options)
