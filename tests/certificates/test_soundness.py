"""No attack may exceed a certificate: once would be a lie.

``benchmarks/soundness.py`` does the same on a thousand networks and keeps the numbers.
"""

from __future__ import annotations

import pytest
import torch
from random_nets import random_case

import trompe
from trompe.certificates import strongest_change
from trompe.certificates.ball import ball
from trompe.certificates.bounds import QUANTITIES
from trompe.certificates.methods import proved
from trompe.certificates.prepared import Prepared
from trompe.certificates.worst_case import change


def violations(
    seed: int,
    steps: int,
    samples: int,
    restarts: int,
    aims: tuple[str, ...] = (),
    l1: bool = False,
) -> list[str]:
    """What was exceeded in one random case; empty if nothing was."""
    net, x, radius, norm, what = random_case(seed)
    if l1:  # as large in l2, at its corners, as the ball of the case
        radius, norm = ball(radius, norm).l2(x.numel()), "l1"
    with torch.no_grad():
        found = proved(Prepared(net, x), ball(radius, norm), "best")
    target = torch.tensor([found.target])
    gradient = trompe.explainer("gradient")
    wrong = []
    before = gradient(net, x, target)
    for aim in aims or QUANTITIES:
        attack = strongest_change(
            net, x, radius=radius, norm=norm, quantity=aim, steps=steps, samples=samples,
            restarts=restarts, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        offset = (attack.x_adv - x).flatten()
        size = offset.norm(p={"l1": 1, "l2": 2, "linf": float("inf")}[norm])
        assert size <= radius * (1 + 1e-9)
        after = gradient(net, attack.x_adv, target)
        for quantity in QUANTITIES:
            reached = torch.nan_to_num(change(quantity, after, before), nan=0.0).detach()
            for name, bounds in found.bounds.items():
                if not float(reached) <= bounds[quantity]:
                    wrong.append(f"{seed} ({what}): {name} {quantity} {float(reached)}")
        if not (before.any() and after.any()):
            continue
        one, other = trompe.heatmap(before), trompe.heatmap(after)
        for k in {1, max(1, one[0].numel() // 4)}:
            kept = round(k * float(trompe.metrics.topk_intersection(one, other, k=k)))
            for name, sets in found.sets.items():
                if kept < max(gradients.kept(k) for gradients in sets):
                    wrong.append(f"{seed} ({what}): {name} top-{k} {kept}")
    return wrong


@pytest.mark.parametrize("seed", range(50))
def test_no_attack_exceeds_a_bound(seed: int) -> None:
    assert not violations(seed, 4, 24, 2, (QUANTITIES[seed % 3],))


@pytest.mark.parametrize("seed", range(100, 120))
def test_no_attack_exceeds_a_bound_in_the_l1_norm(seed: int) -> None:
    assert not violations(seed, 4, 24, 2, (QUANTITIES[seed % 3],), l1=True)


@pytest.mark.slow
def test_no_attack_exceeds_a_bound_on_a_thousand_networks() -> None:
    assert not [line for seed in range(2000, 3000) for line in violations(seed, 20, 100, 6)]


def test_the_harness_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that leaves out most of the change is caught."""
    from trompe.certificates import everywhere, within_reach
    from trompe.certificates.methods import telescope

    honest = within_reach.gradients_within

    def lying(*arguments: object) -> object:
        gradients = honest(*arguments)  # type: ignore[arg-type]
        change = type(gradients.change)(*(0.1 * end for end in gradients.change))
        return type(gradients)(gradients.centre, change, 0.1 * gradients.ball)

    for module in (everywhere, within_reach, telescope):
        monkeypatch.setattr(module, "gradients_within", lying)
    assert any(violations(seed, 4, 24, 2, QUANTITIES[:1]) for seed in range(10))
