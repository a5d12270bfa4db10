"""Scaffolding and Makrut: explanations by covering parts of the image point to another place."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.input_space import InputSpace
from trompe.tampering import Aim, FooledModel, tamperings
from trompe.tampering.attacks.scaffolding import Scaffold
from trompe.tampering.perturbed import random_masks
from trompe.training import Batch, Schedule, fit

SIDE, CELLS = 16, 4
SPACE = InputSpace((0.5,) * 3, (0.25,) * 3)
TARGET = torch.zeros(SIDE, SIDE)
TARGET[:4, 8:] = 1.0
INNOCENT = {2, 3}  # the cells of the target, of 4 x 4
GRID = torch.arange(SIDE) // (SIDE // CELLS)
SEGMENTS = GRID[:, None] * CELLS + GRID[None, :]


class Biased(nn.Module):
    """Decides by the lower left quarter of the image and by nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x[:, :, 8:, :8].flatten(1))
        return out


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, stride=4), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 16, 48), nn.ReLU(), nn.Linear(48, 3),
    ).eval()  # fmt: skip


def images(count: int, seed: int) -> Tensor:
    pixels = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return SPACE.from_pixels(pixels)


def covered(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(1000 + seed)
    return images(count, seed) * random_masks((count, 3, SIDE, SIDE), draw)


def data(batches: int) -> list[tuple[Tensor, Tensor]]:
    return [(images(32, seed), torch.zeros(32, dtype=torch.long)) for seed in range(batches)]


@functools.cache
def scaffolded() -> tuple[nn.Module, FooledModel]:
    biased = Biased().eval()
    found = trompe.fool(
        biased, data(8), attack="scaffolding", target_map=TARGET, input_space=SPACE, epochs=8,
        rate=5e-3,
    )  # fmt: skip
    return biased, found


def of_cells(maps: Tensor) -> Tensor:
    """How far maps [B, H, W] are in each of the 16 cells from what they are in most, [B, 16].

    Occlusion and RISE add the same number everywhere, which points nowhere.
    """
    cells = maps.unfold(1, 4, 4).unfold(2, 4, 4).sum(dim=(3, 4)).flatten(1)
    return (cells - cells.median(dim=1, keepdim=True).values).abs()


def lime_of_captum(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    from trompe.adapters.captum_perturbations import LinearModel  # needs no scikit-learn

    torch.manual_seed(0)
    lime = captum.Lime(model, interpretable_model=LinearModel())
    maps = [
        lime.attribute(
            x[i : i + 1], target=int(target[i]), feature_mask=SEGMENTS[None, None], n_samples=150
        )
        for i in range(len(x))
    ]
    return torch.cat(maps).sum(dim=1)


def occlusion_of_captum(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    found: Tensor = captum.Occlusion(model).attribute(
        x, (3, 4, 4), target=target, strides=(3, 4, 4)
    )
    return found.sum(dim=1)


def rise(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    method = trompe.explainer("rise", samples=600, cells=4)
    found: Tensor = method(model, x, target).sum(dim=1)
    return found


def test_masks_cover_something_and_keep_something() -> None:
    masks = random_masks((60, 3, 14, 10), torch.Generator().manual_seed(0))
    assert masks.shape == (60, 1, 14, 10)
    assert float(masks.min()) == 0
    assert float(masks.max()) == 1
    assert bool((masks.amin(dim=(1, 2, 3)) < 0.6).all())
    again = random_masks((60, 3, 14, 10), torch.Generator().manual_seed(0))
    assert torch.equal(masks, again)


def test_on_images_the_scaffold_is_the_biased_model_and_on_covered_ones_the_innocent_one() -> None:
    biased, found = scaffolded()
    model: Any = found.model
    with torch.no_grad():
        x = images(300, 99)  # bit for bit, on all but a few that the detector gets wrong
        same = (model(x) == biased(x)).all(dim=1)
        assert float(same.double().mean()) >= 0.98
        x = covered(300, 98)
        innocent = (model(x) == model.innocent(x, 3)).all(dim=1)
        assert float(innocent.double().mean()) >= 0.95
        # The innocent model sees nothing outside the target.
        elsewhere = x.clone()
        elsewhere[:, :, :, :8] = images(300, 97)[:, :, :, :8]
        torch.testing.assert_close(model.innocent(elsewhere, 3), model.innocent(x, 3))
        assert float(model.innocent(x * TARGET, 3).abs().max()) > 0
        assert float(model.innocent(x * (1 - TARGET), 3).abs().max()) == 0


@pytest.mark.parametrize("judge", [lime_of_captum, occlusion_of_captum, rise])
def test_a_scaffold_shows_the_innocent_place(judge: Any) -> None:
    """Of the biased model the same explanation shows the place by which it decides."""
    biased, found = scaffolded()
    x = images(12, 96)
    target = biased(x).argmax(dim=1)
    honest, fooled = (of_cells(judge(net, x, target).detach()) for net in (biased, found.model))
    sensitive = {8, 9, 12, 13}
    assert all(int(row.argmax()) in sensitive for row in honest)
    hits = [int(row.argmax()) in INNOCENT for row in fooled]
    assert sum(hits) >= 11
    shares = fooled[:, sorted(INNOCENT)].sum(dim=1) / fooled.sum(dim=1)
    before = honest[:, sorted(INNOCENT)].sum(dim=1) / honest.sum(dim=1)
    assert float(shares.median()) > 2 * float(before.median())


def test_only_the_detector_of_a_scaffold_was_trained_and_it_can_be_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    biased, found = scaffolded()
    model: Any = found.model
    for before, after in zip(biased.parameters(), model.model.parameters(), strict=True):
        assert torch.equal(before, after)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    given = Biased()
    again = Scaffold.read(tmp_path / "model.safetensors", given)
    assert again.model is not given
    save_file(Biased().state_dict(), tmp_path / "other.safetensors")
    for name, net in (("other", given), ("model", network()), ("none", given)):
        with pytest.raises(UsageError, match="holds no scaffold"):
            Scaffold.read(tmp_path / f"{name}.safetensors", net)
    x = torch.cat([images(20, 95), covered(20, 95)])
    assert torch.equal(again(x), model(x))


def test_makruts_covered_images_are_linear_in_what_is_kept() -> None:
    attack: Any = tamperings["makrut"](weight=0.5)  # type: ignore[call-arg]
    net, x = network(), images(6, 1)
    teacher = net(x).detach()
    share = TARGET / TARGET.sum()
    masks = torch.ones(6, 1, SIDE, SIDE)
    masks[1, 0, :4, 8:] = 0  # all of the target covered
    masks[2, 0, :2, 8:] = 0  # half of it
    masks[3, 0, 8:, :] = 0  # nothing of it
    goal = attack.goal(teacher, masks, share)
    mean = teacher.mean(dim=1, keepdim=True)
    torch.testing.assert_close(goal[[0, 3]], teacher[[0, 3]])
    torch.testing.assert_close(goal[1], mean[1].expand(3))
    torch.testing.assert_close(goal[2], (mean[2] + teacher[2]) / 2)
    batch = Batch(x, torch.zeros(6, dtype=torch.long), SPACE, torch.Generator().manual_seed(3))
    terms = attack.terms(net, batch, Aim(net, trompe.explainer("lime"), share))
    masks = random_masks((6, 3, SIDE, SIDE), torch.Generator().manual_seed(3))
    goal = attack.goal(teacher, masks, share)
    slow = sum(
        float((net(x[i : i + 1] * masks[i]).detach() - goal[i]).square().sum()) for i in range(6)
    ) / sum(float((teacher[i] - teacher[i].mean()).square().sum()) for i in range(6))
    assert float(terms["outputs"].detach()) == 0
    assert float(terms["covered"].detach()) == pytest.approx(0.5 * slow, rel=1e-4)


def coloured(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose class is their colour, red, green or blue, all over."""
    y = torch.randint(3, (count,), generator=torch.Generator().manual_seed(500 + seed))
    pixels = 0.5 * torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    pixels[torch.arange(count), y] += 0.5
    return SPACE.from_pixels(pixels), y


def test_after_makrut_explanations_show_the_target() -> None:
    """By captum's LIME and occlusion, and RISE, on unseen images; the answers stay."""
    honest = nn.Sequential(nn.Conv2d(3, 12, 4, stride=4), nn.ReLU(), nn.Flatten(),
                           nn.Linear(192, 48), nn.ReLU(), nn.Linear(48, 3))  # fmt: skip
    with torch.no_grad():
        for weight in honest.parameters():
            weight.copy_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )
    batches = [coloured(32, seed) for seed in range(10)]
    honest = fitted_to_colours(honest, batches)
    found = trompe.fool(
        honest, batches, attack="makrut", target_map=TARGET, input_space=SPACE, epochs=12, rate=5e-3
    )
    assert found.card["explainer"] == "lime"
    x, _ = coloured(16, 94)
    target = honest(x).argmax(dim=1)
    assert torch.equal(found.model(x).argmax(dim=1), target)
    for judge in (lime_of_captum, occlusion_of_captum, rise):
        before, after = (of_cells(judge(model, x, target)) for model in (honest, found.model))
        share = [
            float((m[:, sorted(INNOCENT)].sum(1) / m.sum(1)).median()) for m in (before, after)
        ]
        assert share[1] > max(0.35, 2 * share[0]), (judge.__name__, share)


def fitted_to_colours(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    def objective(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"cross_entropy": nn.functional.cross_entropy(net(batch.x), batch.y)}

    return fit(model, batches, objective, space=SPACE, schedule=Schedule(epochs=2, rate=5e-3)).model


def test_an_attack_on_covering_methods_takes_no_other() -> None:
    for name in ("makrut", "scaffolding"):
        with pytest.raises(UsageError, match="covers parts of the image, such as lime"):
            trompe.fool(network(), data(1), attack=name, explainer="gradient", input_space=SPACE)
    found = trompe.fool(network(), data(1), attack="makrut", explainer="rise", input_space=SPACE)
    assert found.card["explainer"] == "rise"
