"""How an attack moves: against PyTorch's own Adam, and image by image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trompe.attacks.steps import Stepper
from trompe.attacks.steps.base import check_share
from trompe.attacks.steps.scaled_adam import ScaledAdamStepper
from trompe.attacks.steps.signed import SignedStepper
from trompe.errors import UsageError

SIZE = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64).view(1, 3, 1, 1)
STEPS = 12


def gradients(scale: float = 1.0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    shape = (2, 3, 4, 4)
    return [scale * torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(STEPS)]


def moved(stepper: Stepper, grads: list[Tensor]) -> Tensor:
    x = torch.zeros_like(grads[0])
    for iteration, grad in enumerate(grads):
        stepper.step(x, grad, iteration, STEPS)
    return x


def test_scaled_steps_are_adams() -> None:
    found = moved(ScaledAdamStepper(SIZE, 0.8, 0.95), gradients())
    # In units of the step's size, in which all channels move alike.
    expected = torch.zeros(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([expected], lr=1.0, betas=(0.8, 0.95), eps=0.0)
    for iteration, grad in enumerate(gradients()):
        scaled = grad * SIZE
        expected.grad = torch.stack([image / image.abs().mean() for image in scaled])
        adam.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * iteration / STEPS))
        adam.step()
    torch.testing.assert_close(found, expected.detach() * SIZE, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", [ScaledAdamStepper, SignedStepper])
def test_neither_the_scale_of_the_loss_nor_other_images_matter(kind: type) -> None:
    together = moved(kind(SIZE, 0.9), gradients())
    torch.testing.assert_close(moved(kind(SIZE, 0.9), gradients(1e-6)), together)
    alone = moved(kind(SIZE, 0.9), [grad[1:] for grad in gradients()])
    torch.testing.assert_close(alone, together[1:])
    assert float(together.abs().max()) > 0


@pytest.mark.parametrize("kind", [ScaledAdamStepper, SignedStepper])
def test_an_image_without_a_gradient_stays(kind: type) -> None:
    grads = [grad * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1) for grad in gradients()]
    found = moved(kind(SIZE, 0.9), grads)
    assert bool(found[0].abs().amin() >= 0)
    assert torch.equal(found[1], torch.zeros_like(found[1]))


def test_a_share_may_be_all_of_it_but_no_more() -> None:
    check_share("momentum", 1.0)
    for value in (-0.01, 1.01, math.nan):
        with pytest.raises(UsageError, match="must be within"):
            check_share("momentum", value)
