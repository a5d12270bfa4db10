"""APGD's schedule: against the published numbers, and a version for one pixel written by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import trompe
from trompe.attacks import Apgd, L2Ball, Unlike, manipulate
from trompe.attacks.steps.apgd import checkpoints
from trompe.errors import UsageError

SPACE = trompe.InputSpace((0.5,), (0.25,))


def test_the_checkpoints_are_those_of_the_published_code() -> None:
    # In steps of 100: 22, then 3 fewer each time, at least 6.
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000)[:4] == [220, 410, 570, 700]


def by_hand(
    scores: list[float], grads: list[float], radius: float, size: float, momentum: float
) -> list[float]:
    """The algorithm for one pixel in the middle of its range, in pixel units."""
    count, x, previous = len(grads), 0.0, 0.0
    best, best_x, best_grad = math.inf, 0.0, 0.0
    last, before, improved, halved, checked = math.inf, math.inf, 0, True, 0
    places = []

    def cut(value: float) -> float:
        return max(-radius, min(radius, value))

    for t in range(count):
        improved += scores[t] < last
        last, grad = scores[t], grads[t]
        if scores[t] < best:
            best, best_x, best_grad = scores[t], x, grad
        if t in checkpoints(count):
            if improved < 0.75 * (t - checked) or (not halved and best >= before):
                size, x, previous, grad, halved = size / 2, best_x, best_x, best_grad, True
            else:
                halved = False
            before, improved, checked = best, 0, t
        z = cut(x - size * (1 if grad > 0 else -1))
        share = momentum if t else 1.0
        x, previous = cut(x + share * (z - x) + (1 - share) * (x - previous)), x
        places.append(x)
    return places


@pytest.mark.parametrize("momentum", [0.75, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_one_pixel_moves_as_by_hand(seed: int, momentum: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(50, generator=draw, dtype=torch.float64)
    scores = scores - torch.linspace(0, 20 if seed % 2 else 0, 50, dtype=torch.float64)
    grads = torch.randn(50, generator=draw, dtype=torch.float64)
    expected = by_hand(scores.tolist(), grads.tolist(), 0.1, 0.2, momentum)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    stepper = Apgd(0.1, size=2.0, gathering=0.0, momentum=momentum).begin(x, SPACE)
    found = []
    for t in range(50):
        stepper.heed(x.clone(), scores[t : t + 1])
        stepper.step(x, grads[t].view(1, 1, 1, 1), t, 50)
        found.append(float(x) * 0.25)
    assert found == pytest.approx(expected)
    assert len({round(place, 6) for place in found}) > 5


def test_an_image_moves_as_if_it_were_alone_and_stays_in_the_ball() -> None:
    space = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
    draw = torch.Generator().manual_seed(1)

    def moved(step: Apgd, images: slice) -> Tensor:
        drawn = torch.Generator().manual_seed(2)
        origin = space.from_pixels(torch.rand(3, 3, 4, 4, generator=draw.manual_seed(1)))[images]
        x = origin.clone()
        stepper = step.begin(x, space)
        for t in range(30):
            stepper.heed(x.clone(), torch.randn(3, generator=drawn)[images])
            stepper.step(x, torch.randn(3, 3, 4, 4, generator=drawn)[images], t, 30)
        assert bool((step.ball.size(x, origin, space) <= step.radius * (1 + 1e-5)).all())
        assert float(step.ball.size(x, origin, space).min()) > 0
        return x

    for step in (Apgd(0.03), Apgd(0.5, norm="l2")):
        together = moved(step, slice(None))
        torch.testing.assert_close(moved(step, slice(1, 2)), together[1:2])


def test_a_euclidean_step_has_its_length() -> None:
    space = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
    x = space.from_pixels(torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64))
    origin, grad = x.clone(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    Apgd(0.2, norm="l2", size=0.5).begin(x, space).step(x, grad, 0, 10)
    change = (x - origin) / space.scale(1.0, x)
    assert float(change.norm()) == pytest.approx(0.1)
    # Down the gradient with regard to pixels.
    torch.testing.assert_close(change / 0.1, -(p := grad / space.scale(1.0, x).pow(-1)) / p.norm())
    assert isinstance(Apgd(0.2, norm="l2").ball, L2Ball)


def test_it_attacks_through_the_public_function() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 3)
    ).eval()
    x = torch.rand(2, 3, 6, 6)
    draw = torch.Generator().manual_seed(0)
    ball = Apgd(0.05).ball
    found = manipulate(
        net,
        x,
        objective=Unlike(),
        constraint=ball,
        step=Apgd(0.05),
        iterations=30,
        start_noise=0.05,
        generator=draw,
    )
    assert bool(found.success.all())
    before = trompe.metrics.pcc(found.map_adv, found.map_original)
    assert float(before.max()) < 0.9
    assert bool((ball.size(found.x_adv, found.x, trompe.InputSpace()) <= 0.05 + 1e-6).all())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"radius": 0.0}, "radius must be positive"),
        ({"radius": 0.1, "norm": "l1"}, "choose from linf, l2"),
        ({"radius": 0.1, "improving": 2.0}, "improving must be within"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Apgd(**options)  # type: ignore[arg-type]
