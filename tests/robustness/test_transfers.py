"""A result's images before other methods and networks."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import nn

import trompe
from trompe.errors import UsageError
from trompe.metrics import pcc
from trompe.types import AttackResult


@pytest.fixture(scope="module")
def result() -> AttackResult:
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(3, 3, nets.SIZE, nets.SIZE, generator=draw)
    aim = torch.rand(nets.SIZE, nets.SIZE, generator=draw)
    return trompe.manipulate(nets.plain(), x, aim, iterations=20)


def test_its_own_method_and_network_give_its_own_similarity(result: AttackResult) -> None:
    found = trompe.transfer(result, explainers=["gradient", "lrp"], models={"own": nets.plain()})
    own = pcc(result.map_adv, result.map_original)
    torch.testing.assert_close(found.original[0, 0], own, atol=1e-4, rtol=0)
    assert found.target is not None
    assert found.target_before is not None
    torch.testing.assert_close(
        found.target[0, 0], pcc(result.map_adv, result.aim), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        found.target_before[0, 0], pcc(result.map_original, result.aim), atol=1e-4, rtol=0
    )
    assert found.kept[0].tolist() == result.class_kept.tolist()
    counts = result.success
    assert found.matrix()[0, 0] == pytest.approx(float(own[counts].mean()), abs=1e-4)
    assert (found.original[0, 0] - found.original[0, 1]).abs().max() > 1e-3


def test_images_of_which_nothing_was_found_count_for_nothing(result: AttackResult) -> None:
    x_adv = result.x_adv.clone()
    x_adv[0] = result.x[0]
    less = dataclasses.replace(result, x_adv=x_adv)
    found = trompe.transfer(less, explainers="gradient", models=nets.plain())
    assert found.counts[0].tolist() == [False, *result.success[1:].tolist()]
    nothing = dataclasses.replace(result, x_adv=result.x)
    found = trompe.transfer(nothing, explainers="gradient", models=nets.plain())
    assert found.matrix().isnan().all()
    assert " - " in found.table().replace("\n", " ")


def test_a_network_with_another_normalisation_sees_the_same_pixels(result: AttackResult) -> None:
    """A network that goes from its own normalisation to ImageNet's first is the attacked one.

    Its gradient is twice as large everywhere: the map is the same.
    """
    own = result.input_space
    space = trompe.InputSpace((0.5,) * 3, tuple(2 * one for one in own.std))

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nets.plain()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(own.from_pixels(space.to_pixels(x)))

    loaded = trompe.LoadedModel(Other().eval(), space, name="other", size=nets.SIZE)
    found = trompe.transfer(result, explainers=["gradient_x_input", "gradient"], models=[loaded])
    assert found.models == ("other",)
    similarity = pcc(result.map_adv, result.map_original)
    torch.testing.assert_close(found.original[0, 1], similarity, atol=1e-4, rtol=0)
    assert found.kept[0].tolist() == result.class_kept.tolist()


def test_a_linear_network_is_not_moved_and_failures_are_named(result: AttackResult) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * nets.SIZE**2, 4))
    found = trompe.transfer(
        result,
        explainers=["gradient", "gradcam"],
        models={"linear": flat, "small": nn.Sequential(nn.Flatten(), nn.Linear(5, 2))},
    )
    torch.testing.assert_close(found.original[0, 0], torch.ones(3))
    torch.testing.assert_close(found.noise[0, 0], torch.ones(3))
    assert ("linear", "gradcam") in found.failures
    assert ("small", "gradient") in found.failures
    assert "small, gradient: not computed" in found.summary()
    assert repr(found).startswith("Transfer:")


def test_names_are_needed_where_two_are_alike(result: AttackResult) -> None:
    with pytest.raises(UsageError, match="give a mapping"):
        trompe.transfer(result, explainers="gradient", models=[nets.plain(), nets.plain()])
    with pytest.raises(UsageError, match="at least one method"):
        trompe.transfer(result, explainers=[], models=nets.plain())
    found = trompe.transfer(result, explainers="gradient", models=nets.plain())
    with pytest.raises(UsageError, match="no similarity"):
        found.matrix("nonsense")
