"""A manipulation of a random explanation is judged by draws that the attack has not used."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch

import trompe
from trompe.attacks import LInfBall, fresh_draws, preset_for
from trompe.errors import UsageError
from trompe.metrics import pcc

X = 0.6 * nets.images(2, dtype=torch.float32)
TINY = {"samples": 24, "cells": 4}


def attacked(method: trompe.explain.Method) -> trompe.AttackResult:
    aim = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) ** 2
    settings = dataclasses.replace(
        preset_for("fast", method, 8), iterations=60, closeness=0.0, constraint=LInfBall(0.2)
    )
    return trompe.manipulate(nets.plain(), X, aim, explainer=method, preset=settings)


def test_correlations_are_those_of_neighbouring_draws() -> None:
    method = trompe.explainer("rise", **TINY)
    result = attacked(method)
    found = fresh_draws(nets.plain(), result, method, draws=3, seed=50)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in ("original", "floor", "aim")}

    def heat(seed: int, x: torch.Tensor) -> torch.Tensor:
        drawn = trompe.explainer("rise", **TINY, seed=seed)
        return trompe.heatmap(drawn(nets.plain(), x, result.target_class))

    for seed, other in ((50, 51), (51, 52), (52, 50)):
        rows["original"].append(pcc(heat(seed, result.x_adv), heat(other, X)))
        rows["floor"].append(pcc(heat(seed, X), heat(other, X)))
        rows["aim"].append(pcc(heat(seed, result.x_adv), result.aim))
    for name, values in rows.items():
        torch.testing.assert_close(getattr(found, name), torch.stack(values).mean(dim=0))
    assert found.draws == 3


def test_no_seed_of_an_attack_is_used_again() -> None:
    """An attack of a hundred million steps would be needed."""
    used = []

    class Noting(type(trompe.explainer("rise"))):  # type: ignore[misc]
        def redrawn(self, seed: int) -> trompe.explain.Method:
            used.append(seed)
            return self

    method = Noting(**TINY)
    settings = dataclasses.replace(preset_for("fast", method, 8), iterations=3)
    result = trompe.manipulate(
        nets.plain(), X, torch.eye(8), explainer=method, preset=settings, redraw=True
    )
    in_attack = list(used)
    fresh_draws(nets.plain(), result, method)
    assert len(set(in_attack)) == 3
    assert min(used[len(in_attack) :]) > max(in_attack) + 10**8


def test_an_attack_on_one_draw_carries_over_in_part() -> None:
    method = trompe.explainer("rise", **{**TINY, "samples": 200})
    result = attacked(method)
    found = fresh_draws(nets.plain(), result, method)
    own, start = (pcc(heat, result.aim) for heat in (result.map_adv, result.map_original))
    assert found.aim is not None
    assert found.aim_before is not None
    assert float(own.mean()) > float(start.mean()) + 0.1
    assert float(found.aim.mean()) > float(found.aim_before.mean()) + 0.05
    assert float(found.aim.mean()) < float(own.mean())
    assert bool((found.floor < 1).all())


def test_a_method_that_draws_nothing_has_no_floor_but_one() -> None:
    result = attacked(trompe.explainer("occlusion", window=2))
    found = fresh_draws(nets.plain(), result, trompe.explainer("occlusion", window=2))
    torch.testing.assert_close(found.floor, torch.ones(2))
    torch.testing.assert_close(found.original, pcc(result.map_adv, result.map_original))
    untargeted = trompe.attacks.query_attack(nets.plain(), X, explainer="lime", queries=3)
    other = fresh_draws(nets.plain(), untargeted, "kernel_shap", draws=2)
    assert other.aim is None
    assert other.aim_before is None
    with pytest.raises(UsageError, match="at least 2"):
        fresh_draws(nets.plain(), result, "rise", draws=1)
