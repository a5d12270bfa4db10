"""``follow``: every iterate of an attack, in order, and a way to end it."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor

import trompe

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(2))
AIM = torch.rand(8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def attack(**settings: Any) -> trompe.AttackResult:
    net = nets.plain().double()
    return trompe.manipulate(net, X, AIM, input_space=SPACE, **settings)


@pytest.mark.parametrize("capture", ["never", "graph"])
def test_every_iterate_is_shown_in_order(capture: str) -> None:
    seen: list[tuple[int, Tensor]] = []
    result = attack(
        iterations=5, keep="last", capture=capture, follow=lambda *now: seen.append(now)
    )
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    assert torch.equal(seen[-1][1], result.x_adv)
    assert len({x.data_ptr() for _, x in seen}) == 5  # copies: the attack goes on in place


def test_looking_changes_nothing() -> None:
    followed = attack(iterations=4, follow=lambda done, x: x.zero_())
    assert torch.equal(followed.x_adv, attack(iterations=4).x_adv)


def test_an_interruption_ends_the_attack_with_what_it_had() -> None:
    def follow(done: int, x: Tensor) -> None:
        if done == 3:
            raise KeyboardInterrupt

    result = attack(iterations=9, follow=follow)
    assert (result.stopped, result.iterations) == ("interrupted", 3)
