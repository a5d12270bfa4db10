"""Every flag: a case that raises it, one next to it that does not."""

from __future__ import annotations

import pytest
import torch

from trompe.audit import flags as names
from trompe.audit.flags import MEANING, flags

GOOD = {
    "class_kept": 1.0,
    "map_start_pcc": 0.1,
    "map_target_pcc": 0.9,
    "image_linf": 0.02,
    "noise_target_pcc": 0.1,
}


def steady(steps: int = 100) -> torch.Tensor:
    """A loss that falls fast and then stays."""
    return torch.cat([torch.linspace(10, 1, steps // 2), torch.ones(steps - steps // 2)])


def raised(
    *,
    loss: torch.Tensor | None = None,
    map_pcc: float = 0.9,
    beta: float | None = 100.0,
    zero: bool = False,
    stopped: str = "finished",
    **values: float,
) -> list[str]:
    loss = steady() if loss is None else loss
    history = {"loss": loss, "map_pcc": torch.full_like(loss, map_pcc)}
    history["beta"] = torch.full_like(loss, float("nan") if beta is None else beta)
    return flags(GOOD | values, history, zero=zero, stopped=stopped)


def test_a_good_result_has_none() -> None:
    assert raised() == []
    assert flags(GOOD, {}, zero=False, stopped="finished") == []


@pytest.mark.parametrize(
    ("name", "bad", "fine"),
    [
        (names.CLASS_CHANGED, {"class_kept": 0.0}, {"class_kept": 1.0}),
        (names.ZERO_GRADIENT, {"zero": True}, {"zero": False}),
        (names.NOTHING_FOUND, {"image_linf": 0.0}, {"image_linf": 1e-6}),
        (names.NOT_FINITE, {"stopped": "not finite"}, {"stopped": "interrupted"}),
        # The surrogate's last map is nearer to the target by more than 0.15, or by less.
        (names.SURROGATE_DISAGREES, {"map_target_pcc": 0.74}, {"map_target_pcc": 0.76}),
        (names.SURROGATE_DISAGREES, {"map_target_pcc": 0.5}, {"map_target_pcc": 0.5, "beta": None}),
        # More than half of the attack's gain (0.8), or less.
        (names.NOISE_DOES_IT_TOO, {"noise_target_pcc": 0.51}, {"noise_target_pcc": 0.49}),
        # An attack that gains nothing: more than 0.05, or less.
        (
            names.NOISE_DOES_IT_TOO,
            {"map_target_pcc": 0.1, "noise_target_pcc": 0.16, "map_pcc": 0.1},
            {"map_target_pcc": 0.1, "noise_target_pcc": 0.14, "map_pcc": 0.1},
        ),
        # The mean of the last tenth of the steps differs from the first by under a thousandth.
        (
            names.VANISHING_GRADIENT,
            {"loss": torch.cat([torch.ones(90), torch.full((10,), 0.9992)])},
            {"loss": torch.cat([torch.ones(90), torch.full((10,), 0.9988)])},
        ),
        # The last fifth of the steps is lower than the fifth before by over 5 %, or by less.
        (
            names.STILL_FALLING,
            {"loss": torch.cat([torch.full((60,), 9.0), torch.ones(20), torch.full((20,), 0.94)])},
            {"loss": torch.cat([torch.full((60,), 9.0), torch.ones(20), torch.full((20,), 0.96)])},
        ),
    ],
)  # fmt: skip
def test_a_flag_is_raised_on_one_side_of_its_threshold_only(
    name: str, bad: dict[str, object], fine: dict[str, object]
) -> None:
    assert name in raised(**bad)  # type: ignore[arg-type]
    assert name not in raised(**fine)  # type: ignore[arg-type]
    assert name in MEANING


def test_every_flag_is_tried_above() -> None:
    tried = {mark for mark in vars(names).values() if isinstance(mark, str) and mark in MEANING}
    assert tried == set(MEANING)
    (raises,) = [
        mark.args[1]
        for mark in test_a_flag_is_raised_on_one_side_of_its_threshold_only.pytestmark
        if mark.name == "parametrize"
    ]
    assert {case[0] for case in raises} == set(MEANING)


def test_a_gradient_that_is_zero_is_not_called_small_or_fruitless_as_well() -> None:
    found = raised(zero=True, loss=torch.ones(50), image_linf=0.0)
    assert found == [names.ZERO_GRADIENT]


def test_an_attack_that_changed_nothing_is_not_compared_with_noise() -> None:
    assert names.NOISE_DOES_IT_TOO not in raised(image_linf=0.0, noise_target_pcc=0.9)


def test_a_short_history_says_nothing_about_the_loss() -> None:
    assert raised(loss=torch.linspace(10, 1, 9)) == []
