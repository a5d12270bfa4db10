"""The first layer is found by what reaches it: the same function has the same map."""

from __future__ import annotations

from collections.abc import Callable

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import record
from trompe.rules.composites import COMPOSITES, composite_rules
from trompe.types import InputSpace

SPACE = InputSpace()
X = SPACE.from_pixels(torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).double())
TARGET = torch.tensor([0, 3])
FIRST = ("paper", "epsilon_plus_flat", "epsilon_gamma_box")


class Fronted(nn.Module):
    """A small network behind something done to the image."""

    def __init__(self, front: Callable[[Tensor], Tensor], padding: int = 1) -> None:
        super().__init__()
        self.front = front
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=padding), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)),
        )
        nets.seeded(self.body)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.front(x))


def fronted(front: Callable[[Tensor], Tensor], padding: int = 1) -> Fronted:
    return Fronted(front, padding).double().eval().requires_grad_(False)


def explained(net: nn.Module, composite: str, x: Tensor = X) -> Tensor:
    return trompe.explainer("lrp", input_space=SPACE, composite=composite)(net, x, TARGET)


PLAIN = fronted(lambda x: x)
SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "channels cut out": lambda x: x[:, :3],
    "channels last and back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "cast": lambda x: x.double(),
    "normalised by nothing": lambda x: (x - 0.0) / 1.0,
    "cut apart and put together": lambda x: torch.cat(x.chunk(3, dim=1), dim=1),
    "stacked": lambda x: torch.stack(x.unbind(1), dim=1),
    "packed and unpacked": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 3), 3),
    "turned round twice": lambda x: x.flip(-1).roll(1, 2).roll(-1, 2).flip(-1),
    "swapped twice": lambda x: x[:, [2, 1, 0]].index_select(1, torch.tensor([2, 1, 0])),
    "clamped to valid images": lambda x: x.clamp(min(SPACE.low), max(SPACE.high)),
    "an identity in place": lambda x: x.clone().add_(0.0),
    "resized to its own size": lambda x: F.interpolate(x, size=(9, 9), mode="nearest"),
}


@pytest.mark.parametrize("composite", FIRST)
@pytest.mark.parametrize("name", SAME)
def test_what_does_nothing_changes_nothing(name: str, composite: str) -> None:
    net = fronted(SAME[name])
    nets.close(net(X), PLAIN(X), 1e-12)
    nets.close(explained(net, composite), explained(PLAIN, composite), 1e-9)


@pytest.mark.parametrize("composite", FIRST)
def test_other_channel_order(composite: str) -> None:
    net = fronted(lambda x: x[:, [2, 1, 0]])
    net.body[0].weight.copy_(net.body[0].weight[:, [2, 1, 0]].clone())
    nets.close(explained(net, composite), explained(PLAIN, composite), 1e-9)


def scaled(factor: Tensor, shift: Tensor) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """``PLAIN`` for what a front ``factor x + shift`` makes of an image, and the front."""

    def front(x: Tensor) -> Tensor:
        return x * factor.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    net = fronted(front, padding=0)
    weight, bias = net.body[0].weight, net.body[0].bias
    bias.sub_((weight.sum(dim=(2, 3)) * (shift / factor)).sum(dim=1))
    weight.div_(factor.view(1, -1, 1, 1))
    return net, front


@pytest.mark.parametrize("composite", ["paper", "epsilon_gamma_box"])
@pytest.mark.parametrize(
    "spelled", ["numbers", "batch norm", "in place", "divided", "depthwise", "matrix"]
)
def test_rescaled_inputs_have_rescaled_bounds(spelled: str, composite: str) -> None:
    """A negative factor swaps the bounds; the map is that of the network without the front."""
    factor, shift = torch.tensor([2.0, -0.5, 3.0]).double(), torch.tensor([0.3, -1.0, 0.7]).double()
    net, _ = scaled(factor, shift)
    if spelled == "batch norm":
        norm = nn.BatchNorm2d(3, eps=0).double().eval()
        norm.weight.data, norm.bias.data = factor, shift
        net.front = norm.requires_grad_(False)
    elif spelled == "in place":
        net.front = lambda x: x.clone().mul_(factor.view(1, -1, 1, 1)).add_(shift.view(1, -1, 1, 1))
    elif spelled == "divided":
        mean, std = (-shift / factor).view(1, -1, 1, 1), (1 / factor).view(1, -1, 1, 1)
        net.front = lambda x: torch.stack([(c - mean[0]) / std[0] for c in x])
    elif spelled in ("depthwise", "matrix"):
        layer = nn.Conv2d(3, 3, 1, groups=3 if spelled == "depthwise" else 1)
        layer.bias.data = shift
        layer.weight.data = factor.view(3, 1, 1, 1)
        if spelled == "matrix":
            layer.weight.data = torch.diag(factor).view(3, 3, 1, 1)
        net.front = layer.requires_grad_(False)
    plain = fronted(lambda x: x, padding=0)
    nets.close(net(X), plain(X), 1e-12)
    nets.close(explained(net, composite), explained(plain, composite), 1e-7)


@pytest.mark.parametrize("composite", FIRST)
def test_padding_before_the_convolution_is_its_own(composite: str) -> None:
    net = fronted(lambda x: F.pad(x, (1, 1, 1, 1)), padding=0)
    found, expected = explained(net, composite), explained(PLAIN, composite)
    if composite == "epsilon_plus_flat":  # which gives every input the same, padding or pixel
        found, expected = found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1]
        found, expected = found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1]
    nets.close(found, expected, 1e-9)


def bounds(net: nn.Module, composite: str = "epsilon_gamma_box", x: Tensor = X) -> list[object]:
    tape, _ = record(net, x.clone().requires_grad_(True))
    prepare = composite_rules(composite, SPACE).prepare
    assert prepare is not None
    prepare(tape)
    return [op.notes.bounds for op in tape.calls if op.func is torch.conv2d]


def test_bounds_by_hand() -> None:
    low, high = (torch.tensor(v).double() for v in (SPACE.low, SPACE.high))
    first, second = bounds(fronted(lambda x: -2 * x + 1))
    assert second is None
    assert isinstance(first, tuple)
    torch.testing.assert_close(first[0].flatten(), 1 - 2 * high)
    torch.testing.assert_close(first[1].flatten(), 1 - 2 * low)
    (shared, _) = bounds(fronted(lambda x: x * 1.0), "paper")
    assert isinstance(shared, tuple)
    assert [float(b) for b in shared] == pytest.approx([min(SPACE.low), max(SPACE.high)])
    pooled, _ = bounds(fronted(lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
    assert isinstance(pooled, tuple)
    torch.testing.assert_close(pooled[0].flatten(), low)


MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "differences": lambda x: x - x.flip(1),
    "the mean taken off": lambda x: x - x.mean(dim=(2, 3), keepdim=True),
    "layer norm": lambda x: F.layer_norm(x, (9,)),
    "another colour space": lambda x: torch.einsum(
        "oc,bchw->bohw",
        torch.tensor([[0.3, 0.6, 0.1], [-0.1, -0.3, 0.4], [0.6, -0.5, -0.1]]).double(),
        x,
    ),
    "magnitudes": lambda x: x.abs() - 1.0,
    "squares": lambda x: x * x,
}


@pytest.mark.parametrize("name", MIXED)
def test_what_leaves_the_box_has_no_bounds_and_a_sane_map(name: str) -> None:
    net = fronted(MIXED[name])
    assert bounds(net)[0] is None
    relevance = explained(net, "paper")
    score = net(X).gather(1, TARGET.view(-1, 1)).squeeze(1).abs()
    assert bool((relevance.abs().flatten(1).sum(1) <= 1.001 * score).all())
    assert bool(relevance.any())


def test_changed_constants_are_seen() -> None:
    norm = nn.BatchNorm2d(3).double().eval().requires_grad_(False)
    net = fronted(norm)
    before = explained(net, "paper")
    norm.running_mean.add_(torch.tensor([0.5, -0.5, 1.0]))
    after = explained(net, "paper")
    assert not torch.allclose(before, after, rtol=1e-3)
    fresh = nn.BatchNorm2d(3).double().eval().requires_grad_(False)
    fresh.load_state_dict(norm.state_dict())
    nets.close(after, explained(fronted(fresh), "paper"), 1e-12)


def test_what_is_known_of_a_model_is_kept() -> None:
    """Once known, the way to the first layer is not tried again (and the trials not counted)."""
    calls = []

    def front(x: Tensor) -> Tensor:
        calls.append(x)
        return x * torch.ones(()).double()

    factor = torch.ones(()).double()
    net = fronted(lambda x: x * factor)
    first, again = bounds(net)[0], bounds(net)[0]
    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert first[0] is again[0]


def test_the_image_outside_its_box_counts_as_the_nearest_within() -> None:
    """Else the first layer's sums could vanish, and relevance explode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 4, bias=False)).double().requires_grad_(False)
    x = 40 * torch.randn(400, 3, 1, 1).double()
    target = torch.zeros(400, dtype=torch.long)
    relevance = trompe.explainer("lrp")(net, x, target).flatten(1)
    score = net(x)[:, 0].abs()
    assert bool((relevance.abs().sum(1) <= 1.001 * score).all())


def test_z_box_elsewhere_is_refused() -> None:
    from trompe.errors import UsageError
    from trompe.rules.composites import Composite
    from trompe.rules.z_box import ZBox

    composite = Composite(ZBox(), COMPOSITES["epsilon"].dense)
    with pytest.raises(UsageError, match=r"z_B at call 2 .*first"):
        trompe.explainer("lrp", composite=composite)(PLAIN, X, TARGET)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(3, 6, 3, groups=3),
        lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
        lambda: nn.ConvTranspose2d(3, 4, 2, stride=2),
        lambda: nn.ConvTranspose2d(3, 6, 3, groups=3, padding=1),
    ],
)
def test_bounds_of_each_channel_by_dense_matrices(layer: Callable[[], nn.Module]) -> None:
    """``(x - l) w+ + (x - h) w-`` shares out the relevance of each neuron, one at a time."""
    first = nets.seeded(layer()).double()
    x = X[:, :, :4, :4]
    out = first(x)
    head = nets.seeded(nn.Linear(out[0].numel(), 4)).double()
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), head)
    found = explained(net, "epsilon_gamma_box", x)
    low, high = (
        torch.tensor(v).double().view(3, 1, 1).expand(3, 4, 4).flatten()
        for v in (SPACE.low, SPACE.high)
    )
    for i in range(2):
        hidden = first(x[i : i + 1]).relu().flatten()
        logit = head(hidden)[TARGET[i]]
        relevance = hidden * head.weight[TARGET[i]] * logit / (logit + 1e-6 * logit.sign())
        matrix = torch.autograd.functional.jacobian(
            lambda v: first(v.view(1, 3, 4, 4)).flatten(), x[i].flatten()
        )
        expected = torch.zeros(48).double()
        for j, row in enumerate(matrix):
            shares = x[i].flatten() * row - low * row.clamp(min=0) - high * row.clamp(max=0)
            expected += shares / (shares.sum() + 1e-6) * relevance[j]
        nets.close(found[i].flatten(), expected, 1e-6)


def test_a_layer_that_mixes_or_adds_channels_is_a_first_layer() -> None:
    torch.manual_seed(0)
    for first in (nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1, groups=3)):
        net = fronted(first.double().requires_grad_(False))
        assert [box is not None for box in bounds(net)] == [True, False, False]
    swap = nn.Conv2d(3, 3, 1, bias=False).double().requires_grad_(False)
    swap.weight.copy_(torch.eye(3).flip(0).view(3, 3, 1, 1))
    assert [box is not None for box in bounds(fronted(swap))] == [False, True, False]
    swap.weight.fill_(0.5)  # seen, though it is the same tensor
    assert [box is not None for box in bounds(fronted(swap))] == [True, False, False]
