"""No attack may exceed a certificate: once would be a lie."""

from __future__ import annotations

import pytest
import torch
from nets import random_case

import trompe
from trompe.geometry.strongest import QUANTITIES, strongest_change

METHODS = ("frobenius", "global", "interval", "jacobian", "best")


def violations(seed: int, methods: tuple[str, ...], steps: int, samples: int) -> list[str]:
    """What was exceeded in one random case; empty if nothing was."""
    net, x, radius, norm, what = random_case(seed)
    certificates = {m: trompe.certify(net, x, radius=radius, norm=norm, method=m) for m in methods}
    wrong = []
    heat = trompe.explainer("gradient")
    target = certificates[methods[0]].target
    for quantity in QUANTITIES:
        found = strongest_change(
            net, x, radius=radius, norm=norm, quantity=quantity, steps=steps, samples=samples,
            restarts=4, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        offset = (found.x_adv - x).flatten()
        size = offset.abs().max() if norm == "linf" else offset.norm()
        assert size <= radius * (1 + 1e-9)
        for name, certificate in certificates.items():
            bound = float(getattr(certificate, quantity))
            if not float(found.change) <= bound:
                wrong.append(f"{seed} ({what}): {name} {quantity} {float(found.change)} > {bound}")
        before, after = heat(net, x, target), heat(net, found.x_adv, target)
        for k in (1, 3):
            if not (before.any() and after.any()):
                continue
            one, other = trompe.heatmap(before), trompe.heatmap(after)
            if k > one[0].numel():
                continue
            kept = float(trompe.metrics.topk_intersection(one, other, k=k))
            for name, certificate in certificates.items():
                if kept < float(certificate.topk_overlap(k)) - 1e-12:
                    wrong.append(f"{seed} ({what}): {name} top-{k} overlap {kept}")
    return wrong


@pytest.mark.parametrize("seed", range(50))
def test_no_attack_exceeds_a_bound(seed: int) -> None:
    assert not violations(seed, METHODS if seed % 5 == 0 else ("best",), steps=6, samples=32)


@pytest.mark.slow
def test_no_attack_exceeds_a_bound_on_a_thousand_networks() -> None:
    wrong = [line for seed in range(1000, 2000) for line in violations(seed, METHODS, 20, 100)]
    assert not wrong
