"""What outputs mean: when an answer is kept, and on which scale its change is measured."""

from __future__ import annotations

import math

import pytest
import torch

from trompe.errors import UsageError
from trompe.outputs import Outputs, as_outputs

BEFORE = torch.tensor([[2.0, 1.0, -1.0], [0.5, -0.5, 0.1]])


def test_a_class_is_kept_while_it_is_the_largest() -> None:
    after = torch.tensor([[1.1, 1.0, 0.0], [0.5, 0.6, 0.0]])
    assert Outputs().kept(after, BEFORE).tolist() == [True, False]


@pytest.mark.parametrize("meaning", ["binary", "labels"])
def test_labels_are_kept_while_each_is_on_its_side(meaning: str) -> None:
    outputs = Outputs(meaning)  # type: ignore[arg-type]
    after = torch.tensor([[0.1, 9.0, -0.1], [0.5, -0.5, -0.1]])
    assert outputs.kept(after, BEFORE).tolist() == [True, False]
    after = torch.tensor([[2.0, 1.0, math.nan], [0.5, -0.5, 0.1]])
    assert outputs.kept(after, BEFORE).tolist() == [False, True]


def test_the_threshold_moves_the_sides() -> None:
    after = torch.tensor([[1.4, 1.0, -1.0], [0.5, -0.5, 0.1]])
    assert Outputs("labels", threshold=1.5).kept(after, BEFORE).tolist() == [False, True]
    assert Outputs("labels", threshold=0.5).kept(after, BEFORE).tolist() == [True, True]


def test_a_value_is_kept_within_its_tolerance() -> None:
    after = BEFORE + torch.tensor([[0.0, 0.09, 0.0], [0.0, 0.0, -0.03]])
    assert Outputs("value").kept(after, BEFORE).tolist() == [True, False]  # 5 % of 2, and of 0.5
    assert Outputs("value", tolerance=0.05).kept(after, BEFORE).tolist() == [False, True]


def test_change_is_measured_as_probability() -> None:
    assert torch.equal(Outputs().probabilities(BEFORE), BEFORE.softmax(1))
    half = Outputs("binary", threshold=2.0).probabilities(BEFORE[:, :1])
    assert float(half[0]) == 0.5
    assert torch.equal(Outputs("labels").probabilities(BEFORE), BEFORE.sigmoid())
    assert torch.equal(Outputs("value").probabilities(BEFORE), BEFORE)


def test_names_become_meanings() -> None:
    assert as_outputs("binary") == Outputs("binary")
    assert as_outputs("auto") is None
    assert as_outputs(None) is None
    assert as_outputs(Outputs("value", tolerance=1.0)) == Outputs("value", tolerance=1.0)
    for wrong in ("class", 3):
        with pytest.raises(UsageError, match="outputs"):
            as_outputs(wrong)  # type: ignore[arg-type]
    for setting in ({"threshold": math.inf}, {"tolerance": -1.0}, {"tolerance": math.nan}):
        with pytest.raises(UsageError, match=r"threshold|tolerance"):
            Outputs(**setting)
