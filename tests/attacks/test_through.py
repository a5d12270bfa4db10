"""Manipulations that survive a channel, judged with the real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import torch
from torch import Tensor

import trompe
from trompe.attacks import Identity
from trompe.attacks.channels import Channel
from trompe.metrics import pcc

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3))
NET = nets.plain().double()
AIM = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 2


@dataclass(frozen=True)
class Flip(Channel):
    """The mirror image, of which the same map is wanted."""

    def __call__(self, x: Tensor, space: Any, generator: Any = None) -> Tensor:
        return x.flip(-1)


@dataclass(frozen=True)
class Fuzz(Channel):
    """Noise, drawn anew."""

    random = True

    def __call__(self, x: Tensor, space: Any, generator: Any = None) -> Tensor:
        return x + 0.05 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def attack(**options: Any) -> trompe.AttackResult:
    options = {"iterations": 60, "input_space": SPACE, **options}
    return trompe.manipulate(NET, X, AIM, **options)


def after_flip(result: trompe.AttackResult) -> Tensor:
    x = result.x_adv.flip(-1)
    heat = trompe.heatmap(trompe.explainer("gradient")(NET, x, result.target_class))
    return pcc(heat, result.aim)


def test_an_attack_through_a_channel_reaches_the_target_after_it() -> None:
    blind, knowing = attack(), attack(through=[Flip()])
    assert float(after_flip(knowing).mean()) > float(after_flip(blind).mean()) + 0.1
    (left,) = knowing.after.values()
    torch.testing.assert_close(pcc(left.map_adv, knowing.aim), after_flip(knowing))
    clean = trompe.heatmap(trompe.explainer("gradient")(NET, X.flip(-1), knowing.target_class))
    torch.testing.assert_close(left.map_clean, clean.detach())
    nets.close(left.logits_adv, NET(knowing.x_adv.flip(-1)), 1e-12)


def test_the_loss_is_the_mean_over_the_image_and_its_channels() -> None:
    plain, twice = attack(iterations=1), attack(iterations=1, through=[Identity()])
    torch.testing.assert_close(twice.history["loss"], plain.history["loss"])
    flipped = attack(iterations=1, through=[Flip()])
    start = trompe.manipulate(NET, X.flip(-1), AIM, input_space=SPACE, iterations=1)
    target = NET(X).argmax(dim=1)
    assert torch.equal(start.target_class, NET(X.flip(-1)).argmax(dim=1))
    if torch.equal(start.target_class, target):
        assert not torch.equal(flipped.history["loss"], plain.history["loss"])


def test_noise_is_drawn_anew_reproducibly_and_never_captured() -> None:
    one, again, other = (
        attack(
            iterations=5,
            through=[Fuzz()],
            generator=torch.Generator().manual_seed(seed),
            capture="auto",
            keep="last",
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.x_adv, again.x_adv)
    assert not torch.equal(one.x_adv, other.x_adv)
    assert one.provenance["runner"] == "eager"


def test_what_is_left_is_the_same_in_batches_and_in_a_file(tmp_path: Path) -> None:
    whole = attack(through=[Flip()], iterations=3)
    parts = attack(through=[Flip()], iterations=3, batch_size=2)
    saved = trompe.load_result(whole.save(tmp_path / "a.safetensors"))
    assert list(whole.after) == list(parts.after) == list(saved.after) == ["Flip()"]
    for part in ("map_adv", "map_clean", "logits_adv"):
        expected = getattr(whole.after["Flip()"], part)
        torch.testing.assert_close(getattr(parts.after["Flip()"], part), expected)
        assert torch.equal(getattr(saved.after["Flip()"], part), expected)
