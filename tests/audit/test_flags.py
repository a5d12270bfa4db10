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
    kinks: bool = False,
    **values: float,
) -> list[str]:
    loss = steady() if loss is None else loss
    history = {"loss": loss, "map_pcc": torch.full_like(loss, map_pcc)}
    history["beta"] = torch.full_like(loss, float("nan") if beta is None else beta)
    return flags(GOOD | values, history, zero=zero, stopped=stopped, kinks=kinks)


def test_a_good_result_has_none() -> None:
    assert raised() == []
    assert flags(GOOD, {}, zero=False, stopped="finished") == []


@pytest.mark.parametrize(
    ("name", "bad", "fine"),
    [
        (names.CLASS_CHANGED, {"class_kept": 0.0}, {"class_kept": 1.0}),
        (names.KINKS_REMAIN, {"kinks": True}, {"kinks": False}),
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


OBJECTIVE = {"objective_before": 1.0, "objective_after": 0.2, "map_original_pcc": 0.2}


@pytest.mark.parametrize(
    ("name", "bad", "fine"),
    [
        # More than half of the 0.8 that the attack gained, or less; lower is further.
        (names.NOISE_DOES_IT_TOO, {"objective_noise": 0.59}, {"objective_noise": 0.61}),
        # The surrogate's last map is less like the original by more than 0.15, or by less.
        (names.SURROGATE_DISAGREES, {"original_pcc": 0.04}, {"original_pcc": 0.06}),
        # A loss below zero falls, too.
        (
            names.STILL_FALLING,
            {"loss": -torch.cat([torch.ones(80), torch.full((20,), 1.06)])},
            {"loss": -torch.cat([torch.ones(80), torch.full((20,), 1.04)])},
        ),
    ],
)
def test_an_attack_that_aims_at_no_map_is_judged_by_its_objective(
    name: str, bad: dict[str, object], fine: dict[str, object]
) -> None:
    nowhere = {"map_target_pcc": float("nan"), "map_start_pcc": float("nan")}

    def found(case: dict[str, object]) -> list[str]:
        values = {**GOOD, **nowhere, **OBJECTIVE, "objective_noise": 0.9}
        if "objective_noise" in case:
            values["objective_noise"] = case["objective_noise"]  # type: ignore[assignment]
        loss = case.get("loss", -steady() + 20)
        assert isinstance(loss, torch.Tensor)
        history = {"loss": loss, "beta": torch.full_like(loss, 100.0)}
        history["original_pcc"] = torch.full_like(loss, float(case.get("original_pcc", 0.2)))  # type: ignore[arg-type]
        return flags(values, history, zero=False, stopped="finished")

    assert name in found(bad)
    assert name not in found(fine)


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


def test_the_loss_of_the_last_fifth_is_set_against_the_fifth_before() -> None:
    """Ten steps: the mean of the last two, 1.2, and of the two before, 1.5: a fifth less."""
    loss = torch.tensor([9.0, 9, 9, 9, 9, 9, 1, 2, 1.2, 1.2])
    assert names.STILL_FALLING in raised(loss=loss)
    assert names.STILL_FALLING not in raised(loss=loss.flip(0))
    assert names.STILL_FALLING not in raised(
        loss=torch.tensor([9.0, 9, 9, 9, 9, 9, 2, 1, 1.5, 1.5])
    )


@pytest.mark.parametrize("key", ["map_pcc", "original_pcc"])
def test_the_surrogates_last_map_counts_and_no_other(key: str) -> None:
    """All maps of the surrogate but the last are far from the original network's."""
    away = -1.0 if key == "original_pcc" else 1.0
    last = torch.full((10,), away)
    last[-1] = 0.5
    values = {**GOOD, "map_target_pcc": 0.5, "map_original_pcc": 0.5}
    history = {"loss": steady(10), "beta": torch.full((10,), 100.0)}

    def found(curve: torch.Tensor) -> bool:
        all_flags = flags(values, {**history, key: curve}, zero=False, stopped="finished")
        return names.SURROGATE_DISAGREES in all_flags

    assert not found(last)
    last[-1] = away
    assert found(last)
