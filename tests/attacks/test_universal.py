"""One change for all images: the optimum of a linear toy, and what held-out images say."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import LInfBall
from trompe.attacks.constraints import L2Ball, ValidImage
from trompe.errors import UsageError
from trompe.metrics import pcc

PLAIN = trompe.InputSpace((0.0,), (1.0,))


def batches(count: int, channels: int = 3, size: int = nets.SIZE) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(3, channels, size, size, generator=draw) * 0.4 + 0.3 for _ in range(count)]


def test_on_a_linear_network_every_pixel_goes_to_its_end_of_the_interval() -> None:
    """The map of gradient times input is x itself: the best change is +r in the aim, -r outside."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.ones(16), torch.zeros(16)]))
        net[1].bias.zero_()
    aim = torch.zeros(4, 4)
    aim[:2] = 1.0
    found = trompe.manipulate_all(
        net,
        batches(4, channels=1, size=4),
        aim,
        explainer="gradient_x_input",
        objective="reach_map",
        constraint=LInfBall(0.1),
        epochs=30,
        input_space=PLAIN,
    )
    torch.testing.assert_close(found.change[0], (2 * aim - 1) * 0.1, atol=1e-6, rtol=0)
    assert found.held_out.target is not None
    assert found.noise.target is not None
    assert found.held_out.target.mean() > found.noise.target.mean() + 0.2


def test_held_out_images_are_judged_anew_beside_noise_of_the_same_size() -> None:
    net, data = nets.plain(), batches(4)
    space = trompe.InputSpace()
    found = trompe.manipulate_all(net, data, constraint=LInfBall(0.1), epochs=16)
    x = data[-1]
    now = found.apply(x)
    assert ((now - x) / space.scale(1.0, x)).abs().max() <= 0.1 + 1e-6
    classes = net(x).argmax(dim=1)
    method = trompe.explainer("gradient")
    with torch.no_grad():
        before, after = (trompe.heatmap(method(net, one, classes)) for one in (x, now))
        kept = net(now).argmax(dim=1) == classes
    torch.testing.assert_close(found.held_out.original, pcc(after, before), atol=1e-4, rtol=0)
    assert found.held_out.kept.tolist() == kept.tolist()
    assert len(found.held_out.kept) == len(x)
    assert len(found.seen.kept) == 9
    assert found.held_out.mean() < found.noise.mean() - 0.1
    assert "held-out images" in found.summary()
    assert f"{found.held_out.mean():.3f}" in repr(found)


def test_a_constant_map_cannot_be_changed() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    found = trompe.manipulate_all(net, batches(2, channels=1, size=4), epochs=2, input_space=PLAIN)
    assert found.held_out.mean() == pytest.approx(1.0)


def test_what_cannot_be_done_is_refused_in_one_line() -> None:
    net, data = nets.plain(), batches(2)
    with pytest.raises(UsageError, match="at least two batches"):
        trompe.manipulate_all(net, data[:1])
    with pytest.raises(UsageError, match="one size"):
        trompe.manipulate_all(net, [data[0], data[1][..., :4]])
    with pytest.raises(UsageError, match="must be a ball"):
        trompe.manipulate_all(net, data, constraint=ValidImage())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="epochs"):
        trompe.manipulate_all(net, data, epochs=0)


def test_a_euclidean_change_stays_in_its_ball() -> None:
    found = trompe.manipulate_all(nets.plain(), batches(2), constraint=L2Ball(0.5), epochs=3)
    size = (found.change / trompe.InputSpace().scale(1.0, found.change[None])[0]).norm()
    assert 0 < size <= 0.5 + 1e-5


def test_an_interruption_keeps_the_best_so_far() -> None:
    def stop(done: int, total: int, numbers: object) -> None:
        if done == 4:
            raise KeyboardInterrupt

    found = trompe.manipulate_all(
        nets.plain(), batches(3), constraint=LInfBall(0.1), epochs=9, progress=stop
    )
    assert (found.stopped, found.steps) == ("interrupted", 4)


def test_what_the_search_cannot_see_past_is_said_with_its_numbers() -> None:
    """A gradient without the part that is held back: maps left as they were prove nothing."""

    class HeldBack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nets.plain()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x) + self.body(x.flip(-1)).detach()
            return out

    found = trompe.manipulate_all(HeldBack().eval(), batches(2), epochs=1)
    assert found.remaining_kinks == ("the gradient, which is not that of the output",)
    assert "prove nothing" in found.summary()
    assert "prove nothing" in repr(found)
    plain = trompe.manipulate_all(nets.plain(), batches(2), epochs=1)
    assert plain.remaining_kinks == ()
    assert "prove nothing" not in plain.summary() + repr(plain)
