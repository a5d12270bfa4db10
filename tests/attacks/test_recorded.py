"""Reaching a map gives the numbers that it gave before the attack took its parts as objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nets
import pytest
import torch
from safetensors.torch import load_file

import trompe
from trompe.attacks import Preset, preset_for

RECORDED = load_file(Path(__file__).parent / "recorded_reach_map.safetensors")
CASES = sorted({name.rpartition(".")[0] for name in RECORDED})
SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def settings(preset: str, method: str) -> Preset:
    """As they were when the numbers were recorded.

    Guided backpropagation had what the deconvnet has, and of the methods whose beta is measured in
    spreads now, beta was the same in all layers and the prices were others.
    """
    other = method == "guided_backprop" and preset != "paper"
    found = preset_for(preset, "deconvnet" if other else method, 8)
    if not found.per_layer:
        return found
    closeness = {"fast": 400.0, "thorough": 800.0}[preset]
    return dataclasses.replace(
        found, per_layer=False, beta_start=8.0, output_start=1e-3, closeness=closeness
    )


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_recorded(case: str) -> None:
    """In float64, to what another processor's order of summation may change."""
    method, preset, output = case.split(".")
    x = SPACE.clamp(0.6 * nets.images(3))
    draw = torch.Generator().manual_seed(4)
    aim = torch.rand(3, 8, 8, generator=draw, dtype=torch.float64) ** 2
    result = trompe.manipulate(
        nets.plain().double(),
        x,
        aim,
        explainer=method,
        input_space=SPACE,
        preset=settings(preset, method),
        iterations=15,
        keep_output=output,
        capture="never",
    )
    torch.testing.assert_close(result.x_adv, RECORDED[f"{case}.x_adv"], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        result.history["loss"], RECORDED[f"{case}.loss"], rtol=1e-5, atol=1e-9
    )
