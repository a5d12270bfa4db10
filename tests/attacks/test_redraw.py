"""Methods that draw: attacked with other draws in every step, judged on draws never used."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch

import trompe
from trompe.attacks import ScaledAdam, differentiate
from trompe.metrics import pcc

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3))
NET = nets.plain().double()
MANY = trompe.explainer("rise", samples=400, cells=4, seed=77)
AIM = trompe.heatmap(MANY(NET, X.roll(1, dims=0), NET(X).argmax(dim=1))).detach()


def attack(method: Any, **options: Any) -> trompe.AttackResult:
    return trompe.manipulate(NET, X, AIM, explainer=method, input_space=SPACE, **options)


def on_other_masks(method: Any, result: trompe.AttackResult) -> float:
    """The mean correlation with the target over draws that the attack has never seen."""
    found = []
    for seed in range(500, 510):
        heat = trompe.heatmap(method.redrawn(seed)(NET, result.x_adv, result.target_class))
        found.append(pcc(heat, result.aim).mean())
    return float(torch.stack(found).mean())


def test_drawing_anew_reaches_masks_that_were_never_used() -> None:
    rise = trompe.explainer("rise", samples=40, cells=4, seed=0)
    anew, fixed = (
        attack(rise, redraw=redraw, iterations=60, step=ScaledAdam(0.004))
        for redraw in (True, False)
    )
    start = attack(rise, redraw=True, iterations=0)
    before, after = on_other_masks(rise, start), on_other_masks(rise, anew)
    assert after > before + 0.1
    assert after > on_other_masks(rise, fixed)


@pytest.mark.parametrize(
    ("name", "expected"), [("rise", True), ("smoothgrad", False), ("gradient", False)]
)
def test_masks_are_drawn_anew_by_default_and_nothing_else_is(name: str, expected: bool) -> None:
    result = attack(name, iterations=1)
    assert result.provenance["redraw"] is expected


def test_no_step_uses_the_draws_of_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    look = differentiate.Differentiate.__call__

    def seen(self: Any, *args: Any) -> Any:
        seeds.append(self.explainer.seed)
        return look(self, *args)

    monkeypatch.setattr(differentiate.Differentiate, "__call__", seen)
    rise = trompe.explainer("rise", samples=4, cells=4, seed=3)
    attack(rise, iterations=5, capture="never")
    assert len(set(seeds)) == 5
    assert 3 not in seeds


def test_a_method_without_draws_is_attacked_as_it_is() -> None:
    plain = attack("gradient", iterations=5, redraw=False, capture="never")
    asked = attack("gradient", iterations=5, redraw=True, capture="never")
    assert torch.equal(plain.x_adv, asked.x_adv)
