"""What was found out about a model is not taken for another's that has its parts' ids."""

from __future__ import annotations

import gc

import torch
from torch import nn

import trompe
from trompe.engine.once import Answers, once


class Part:
    pass


def test_an_answer_is_gone_with_its_objects() -> None:
    answers, part, stays = Answers[int](), Part(), Part()
    answers.keep("both", 1, [part, stays])
    answers.keep("one", 2, [stays])
    del part
    gc.collect()
    assert dict(answers) == {"one": 2}


def test_an_exchanged_module_is_looked_at_anew() -> None:
    """Its id is often that of the one before, which was freed."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2)
    asked = []
    for number in range(20):
        net[1] = nn.Linear(12, 3)
        gc.collect()
        once(net, "question", (x,), {}, lambda n=number: asked.append(n))  # type: ignore[misc]
    assert asked == list(range(20))


def test_a_module_put_in_place_of_another_is_checked() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Identity()), torch.rand(1, 3, 2, 2)
    refused = 0
    for chance in (False, True) * 10:
        net[2] = nn.Dropout(0.5) if chance else nn.Identity()
        net[2].train(chance)
        gc.collect()
        try:
            trompe.explainer("gradient")(net, x, 0)
        except trompe.errors.ModelError:
            refused += 1
            assert chance
    assert refused == 10
