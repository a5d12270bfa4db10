"""Beta measured in what each activation is given: the scales, and where they count."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import Smoothed, smooth
from trompe.engine.spreads import Spreads, pink_noise, spreads


class Uneven(nn.Module):
    """Two activations and a pooling; the inputs of the second one are 100 times larger."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(x), 2)
        return torch.clamp(100 * h - 50, min=0).flatten(1)[:, :3]


LIKE = torch.zeros(3, 1, 8, 8, dtype=torch.float64)


def test_spreads_are_those_of_what_is_given() -> None:
    noise = pink_noise(LIKE)
    first, pooled = noise.std(), noise.relu().std()
    second = (100 * F.max_pool2d(noise.relu(), 2) - 50).std()
    found = spreads(Uneven(), LIKE)
    assert found.activations == pytest.approx([float(first), float(second)], rel=1e-6)
    assert found.poolings == pytest.approx([float(pooled)], rel=1e-6)


def test_each_kink_has_its_beta_over_its_spread() -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scales = Spreads((2.0, 3.0), (4.0,)).scales
    model = Smoothed(Uneven(), 6.0, 2.0, True, *scales)
    windows = F.softplus(x, 3.0).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    h = (3.0 * windows).logsumexp(-1) / 3.0
    expected = F.softplus(100 * h - 50, 2.0, threshold=50).flatten(1)[:, :3]
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x), expected)  # counted anew at every call
    careful = Smoothed(Uneven(), 6.0, 2.0, True, *scales)
    torch.testing.assert_close(careful._run(careful.model, (x,), {}, careful=True), expected)


def test_each_activation_has_its_own_beta() -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = smooth(Uneven(), beta=2.0)
    model.scales = (3.0, 0.5)
    h = F.max_pool2d(F.softplus(x, 6.0), 2)
    expected = F.softplus(100 * h - 50, 1.0, threshold=50).flatten(1)[:, :3]
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x), expected)  # counted anew at every call
    model.scales = (3.0,)
    expected = F.softplus(100 * h - 50, 2.0, threshold=50).flatten(1)[:, :3]
    torch.testing.assert_close(model(x), expected)
    model.beta = 1e6
    torch.testing.assert_close(model(x), Uneven()(x), atol=1e-4, rtol=1e-6)


def test_a_beta_that_is_a_tensor_is_scaled_too() -> None:
    x = nets.images()
    number, tensor = (smooth(nets.plain().double(), beta=beta) for beta in (4.0, torch.tensor(4.0)))
    number.scales = tensor.scales = (0.25, 2.0)
    torch.testing.assert_close(number(x), tensor(x))


def test_scales_do_not_depend_on_the_images_and_leave_the_model_as_it_is() -> None:
    model = nets.plain().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = spreads(model, nets.images()).activations
    assert len(found) == sum(isinstance(module, nn.ReLU) for module in model.modules())
    assert spreads(model, nets.images()[:1] * 3).activations == found
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_without_activations_has_no_scales() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3).double())
    assert spreads(linear, LIKE) == Spreads()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 1).double(), nn.ReLU())
    nn.init.zeros_(flat[1].weight)
    assert spreads(flat, LIKE) == Spreads(), "its input does not spread at all"


class Strict(nn.Module):
    """It takes images of one range only, which noise leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.plain().double()

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().abs().max()) > 2:
            raise ValueError("normalise the images to -2..2")
        return self.net(x)


def test_a_model_that_refuses_noise_is_attacked_with_one_beta() -> None:
    draw = torch.Generator().manual_seed(2)
    x = torch.rand(1, 3, 8, 8, generator=draw, dtype=torch.float64) - 0.5
    assert spreads(nets.plain().double(), x).activations
    assert spreads(Strict(), x) == Spreads()
    space = trompe.InputSpace((0.5,) * 3, (0.5,) * 3)
    found = trompe.auto_attack(Strict(), x, radius=0.02, input_space=space, budget=0.02)
    assert found.failures == {}
    result = trompe.manipulate(Strict(), x, torch.rand(8, 8), input_space=space, iterations=2)
    assert result.stopped == "finished"


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 2, 50), (1, 1, 6, 7, 8), (4, 5)])
def test_pink_noise_has_the_spectrum_of_photos(shape: tuple[int, ...]) -> None:
    noise = pink_noise(torch.zeros(shape, dtype=torch.float64), count=3)
    assert noise.shape == (3, *shape[1:])
    assert torch.equal(noise, pink_noise(torch.ones(shape, dtype=torch.float64), count=3))
    if len(shape) == 2:
        return
    torch.testing.assert_close(noise.flatten(1).std(dim=1), torch.ones(3).double())
    torch.testing.assert_close(
        noise.flatten(1).mean(dim=1), torch.zeros(3).double(), atol=1e-6, rtol=0
    )
    steps = (noise.diff(dim=-1) ** 2).mean()
    assert float(steps) < 1.6, "neighbours are alike, which they are not in white noise (2.0)"
