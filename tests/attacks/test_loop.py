"""The loop itself: when it ends, what it keeps, and what it asks of the device."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import Adam, Keep, ReachMap, ValidImage
from trompe.attacks.loop import Attack, Best, Means
from trompe.attacks.loss import Loss
from trompe.attacks.observation import observe
from trompe.engine import smooth

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3))
AIM = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


class Breaks(nn.Module):
    """Not a number for images that have moved too far."""

    def __init__(self, smoothed: bool) -> None:
        super().__init__()
        net = nets.plain().double()
        self.net = smooth(net, beta=5.0, pooling=1.0) if smoothed else net

    def forward(self, x: Tensor) -> Tensor:
        moved = ((x - X[: len(x)]).square().detach() > 0.035**2).flatten(1).any(dim=1)
        return self.net(x) + torch.where(moved, torch.nan, 0.0).view(-1, 1)


def attacked(ask_every: int, surrogate: bool) -> Attack:
    net, method = Breaks(smoothed=not surrogate), trompe.explainer("gradient")
    target = net(X).argmax(1)
    attack = Attack(
        model=net,
        surrogate=smooth(net, beta=5.0) if surrogate else None,
        explainer=method,
        loss=Loss(ReachMap(AIM / AIM.sum((1, 2), keepdim=True)), Keep(), SPACE),
        constraint=ValidImage(),
        stepper=Adam(0.01).begin(X, SPACE),
        beta=lambda iteration: 5.0,
        reference=observe(net, method, X, target),
        target=target,
        ask_every=ask_every,
    )
    attack.run(X, 25)
    return attack


@pytest.mark.parametrize("surrogate", [False, True])
@pytest.mark.parametrize("ask_every", [3, 10, 100])
def test_how_often_it_is_asked_changes_nothing(ask_every: int, surrogate: bool) -> None:
    always, seldom = attacked(1, surrogate), attacked(ask_every, surrogate)
    assert always.stopped == seldom.stopped == "not finite"
    assert 1 < always.done == seldom.done < 10
    torch.testing.assert_close(seldom.best.x, always.best.x)
    torch.testing.assert_close(seldom.x, always.x)
    torch.testing.assert_close(seldom.history, always.history, equal_nan=True)
    assert len(always.history["loss"]) == always.done


def test_a_step_leaves_no_tensor_behind() -> None:
    """Small tensors kept from step to step break up the heap: a process grew by gigabytes."""
    alive: list[int] = []

    def count(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        gc.collect()
        alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))

    trompe.manipulate(
        nets.plain().double(),
        X,
        AIM,
        explainer="gradient",
        input_space=SPACE,
        preset="fast",
        iterations=25,
        progress=count,
        capture="never",
    )
    assert alive[-1] <= alive[11]


def test_the_best_is_taken_image_by_image() -> None:
    best = Best(torch.zeros(4, 1, 2, 2), torch.tensor([1.0, 1.0, 1.0, 1.0]))
    kept = torch.tensor([True, False, True, True])
    best.offer(torch.ones(4, 1, 2, 2), torch.tensor([0.5, 0.5, 2.0, torch.nan]), kept)
    assert best.score.tolist() == [0.5, 1, 1, 1]  # the class changed; worse; none
    assert best.x.flatten(1).amax(1).tolist() == [1, 0, 0, 0]


def test_numbers_are_means_without_those_that_are_none() -> None:
    numbers = Means({"loss": torch.tensor([1.0, torch.nan, 3.0]), "rate": torch.tensor([0.5])})
    assert isinstance(numbers, Mapping)
    assert dict(numbers) == {"loss": 2.0, "rate": 0.5}
    assert len(numbers) == 2


def test_iterates_are_judged_by_the_whole_prefactor() -> None:
    net, method = nets.plain().double(), trompe.explainer("lrp", input_space=SPACE)
    target = net(X).argmax(1)
    aim = ReachMap(AIM / AIM.sum((1, 2), keepdim=True))
    loss = Loss(aim, Keep(), SPACE, prefactors=(1e3, 1e6))
    origin = observe(net, method, X, target)
    attack = Attack(
        model=net,
        surrogate=None,
        explainer=method,
        loss=loss,
        constraint=ValidImage(),
        stepper=Adam(0.02).begin(X, SPACE),
        beta=lambda iteration: None,
        reference=origin,
        target=target,
        strictness=lambda iteration: 1e-6,
    )
    attack.run(X, 20)
    best = observe(net, method, attack.best.x, target)
    torch.testing.assert_close(attack.best.score, loss(best, origin))
    assert bool((attack.best.score <= loss(origin, origin)).all())


class NoPooling(nn.Module):
    """A convolution, a kink, an average."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x).mean((2, 3)))


@pytest.mark.parametrize("pooled", [True, False])
def test_signals_are_attacked_with_and_without_pooling(pooled: bool) -> None:
    """Where there is none to smooth, activations are, or nothing would move."""
    net = nets.plain().double() if pooled else NoPooling().eval().double()
    result = trompe.manipulate(
        net,
        X,
        AIM,
        explainer="guided_backprop",
        input_space=SPACE,
        preset="fast",
        iterations=20,
        keep="last",
    )
    assert bool((result.x_adv != X).flatten(1).any(dim=1).all())
    assert result.provenance["vanishing_gradient"] == [False] * 3
