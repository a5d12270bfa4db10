"""z+ and z_B return at most the logit, on networks whose activations have both signs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nets
import pytest
import torch
import torch.nn.functional as F
import zennit.composites
import zennit.rules
import zennit.types
from torch import Tensor, nn

import trompe
from trompe.engine import record, sweep
from trompe.errors import UnsupportedOp
from trompe.rules.composites import COMPOSITES, composite_rules

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from families import SMALL, build, images

SPACE = trompe.InputSpace()
LRP = trompe.explainer("lrp")
TARGET = torch.tensor([1, 3])


def pixels(size: int) -> Tensor:
    return SPACE.from_pixels(
        torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    )


def shares(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What of the magnitude of the logit is in the map, in magnitude, and its sum, each [B]."""
    score = net(x).gather(1, TARGET.view(-1, 1)).squeeze(1)
    relevance = LRP(net, x, TARGET).flatten(1)
    return relevance.abs().sum(1) / score.abs(), relevance.sum(1) / score


@pytest.mark.parametrize("name", SMALL)
def test_the_families_people_use(name: str) -> None:
    net, size = build(SMALL[name])
    for model in (net, trompe.smooth(net, beta=3.0, pooling=True)):
        magnitude, total = shares(model, pixels(size))
        assert bool((magnitude <= 1 + 1e-6).all()), magnitude
        torch.testing.assert_close(magnitude, total)  # all of the sign of the logit


class Bottlenecks(nn.Module):
    """Depthwise and pointwise convolutions with nothing between, added up: both signs."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        for i in (1, 2, 3):
            depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
            pointwise = nn.Conv2d(8, 8, 1, bias=False)
            self.add_module(f"block{i}", nn.Sequential(depthwise, pointwise))
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = h + self.block1(self.activation(h))
        h = h - self.block2(h)
        left, right = self.block3(h).chunk(2, dim=1)
        h = torch.stack([left, right], dim=2).flatten(1, 2)  # a channel shuffle
        return self.head(h.mean((2, 3)))


ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gated": lambda h: h * torch.sigmoid(h.mean((2, 3), keepdim=True)),
    "layer norm": lambda h: F.layer_norm(h, h.shape[1:]),
    "group norm": lambda h: F.group_norm(h, 2),
    "response norm": lambda h: h * h.norm(dim=(2, 3), keepdim=True),
    "centred": lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True),
    "attention": lambda h: F.scaled_dot_product_attention(h, h, h),
    "up and down": lambda h: F.avg_pool2d(
        F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False), 2
    ),
    "none": lambda h: h,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_linear_bottlenecks_conserve_relevance(name: str, seed: int) -> None:
    """Without biases nothing is lost but where a neuron has no positive contribution."""
    net = nets.seeded(Bottlenecks(ACTIVATIONS[name]), seed).double()
    magnitude, total = shares(net, pixels(8))
    assert bool((magnitude <= 1 + 1e-6).all())
    assert bool((total >= 0.7).all()), total


def test_by_contribution_relevance_explodes() -> None:
    """What the bounded sums guard against: a skip connection that nearly cancels its branch."""

    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.stem(x))
            return self.head((h - 0.99 * h.flip(1).flip(1)).mean((2, 3)))

    net, x = nets.seeded(Cancelling()).double(), pixels(8)
    loose = replace(COMPOSITES["paper"], sums="contribution")
    tape, _ = record(net, x.clone().requires_grad_(True))
    (op,) = (op for op in tape.calls if "sub" in op.name)
    rules = composite_rules(loose, SPACE)
    relevance = torch.rand_like(op.out)
    sent = sum(float(share.abs().sum()) for share in rules.rules[op.func](relevance, op))
    assert sent > 100 * float(relevance.sum())
    assert bool((shares(net, x)[0] <= 1 + 1e-6).all())


def test_linear_bottlenecks_against_zennit() -> None:
    """Convolutions in a row, whose inputs have both signs: zennit's ZPlus and ZBox."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, groups=8, bias=False)),
        *(nn.Conv2d(8, 6, 1, bias=False), nn.ReLU6(), nn.Conv2d(6, 6, 3, groups=6, bias=False)),
        *(nn.Conv2d(6, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten()),
        *(nn.Linear(16, 5, bias=False), nn.Linear(5, 4, bias=False)),
    )
    nets.seeded(net).double()
    x = pixels(6)
    low, high = (torch.full_like(x, end) for end in (min(SPACE.low), max(SPACE.high)))
    composite = zennit.composites.SpecialFirstLayerMapComposite(
        layer_map=[
            (zennit.types.Activation, zennit.rules.Pass()),
            (nn.ReLU6, zennit.rules.Pass()),
            (zennit.types.Linear, zennit.rules.ZPlus(stabilizer=1e-9)),
        ],
        first_map=[(zennit.types.Linear, zennit.rules.ZBox(low, high, stabilizer=1e-9))],
    )
    start = x.clone().requires_grad_(True)
    with composite.context(net) as modified:
        logits = modified(start)
        seed = F.one_hot(TARGET, 4) * logits.detach()
        (expected,) = torch.autograd.grad(logits, start, seed)
    nets.close(LRP(net, x, TARGET), expected, 1e-7)


def test_a_residual_sum_is_a_layer_with_weights_one_under_z_plus() -> None:
    """Before a ReLU, where the sum is positive or has no relevance: zennit's ZPlus again."""

    class Residual(nn.Module):
        def __init__(self, written_out: bool) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.join = nn.Conv2d(8, 4, 1, bias=False) if written_out else None
            self.head = nn.Linear(4 * 16, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.stem(x))
            branch = self.body(h)
            joined = h + branch if self.join is None else self.join(torch.cat([h, branch], 1))
            return self.head(F.relu(joined).flatten(1))

    short, long = (nets.seeded(Residual(flag)).double() for flag in (False, True))
    long.load_state_dict(short.state_dict(), strict=False)
    identity = torch.eye(4).double().view(4, 4, 1, 1)
    long.join.weight.copy_(torch.cat([identity, identity], dim=1))
    x = pixels(6)
    nets.close(short(x), long(x), 1e-12)
    nets.close(LRP(short, x, TARGET), LRP(long, x, TARGET), 1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_taken_for_nonnegative_is(name: str) -> None:
    net, size = build(SMALL[name])
    marked = 0
    for model in (net, trompe.smooth(net, beta=3.0, pooling=True)):
        tape, _ = record(model, images(size).requires_grad_(True))
        prepare = composite_rules("paper", SPACE).prepare
        assert prepare is not None
        prepare(tape)
        for op in tape.calls:
            if op.notes.nonnegative:
                marked += 1
                assert all(float(alias.detach().min()) >= 0 for _, alias in op.edges), op.name
    assert marked or name in ("vit", "swin", "convnext", "efficientnet")


@pytest.mark.parametrize(
    "written",
    [
        lambda h: F.pad(h, (1, 1, 1, 1), value=-3.0),
        lambda h: h.index_put((torch.tensor([0, 1]),), torch.tensor(-2.0).double()),
        lambda h: h.masked_fill(h > 0.5, -1.0),
        lambda h: torch.where(h > 0.5, h, -1.0),
        lambda h: h * -1.0,
        lambda h: h + torch.tensor(-1.0).double(),
        lambda h: torch.cat([h, -h], dim=1)[:, :4],
        lambda h: h.sub(1.0),
    ],
)
def test_what_may_be_negative_is_not_taken_for_nonnegative(
    written: Callable[[Tensor], Tensor],
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(written(F.relu(self.first(x)))).mean((2, 3))

    tape, _ = record(nets.seeded(Net()).double(), pixels(4).requires_grad_(True))
    prepare = composite_rules("paper", SPACE).prepare
    assert prepare is not None
    prepare(tape)
    second = [op for op in tape.calls if op.func is torch.conv2d][1]
    assert not second.notes.nonnegative


def test_where_nothing_is_negative_the_short_form_of_z_plus_is_the_long_one() -> None:
    net, x = nets.plain().double(), SPACE.clamp(0.6 * nets.images())
    rules = composite_rules("paper", SPACE)
    found = []
    for known in (True, False):
        tape, logits = record(net, x.clone().requires_grad_(True))
        assert rules.prepare is not None
        rules.prepare(tape)
        assert any(op.notes.nonnegative for op in tape.calls)
        for op in tape.calls:
            op.notes.nonnegative &= known
        seed = trompe.explain.base.one_hot(logits, TARGET)
        found.append(sweep(tape, logits, seed, replace(rules, prepare=None)))
    nets.close(found[0], found[1], 1e-12)


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet", "efficientnet", "vit", "convnext"])
def test_excitation_is_at_most_a_distribution(name: str) -> None:
    net, size = build(SMALL[name])
    relevance = trompe.explainer("excitation_backprop")(net, pixels(size), TARGET)
    assert bool((relevance >= -1e-9).all())
    total = relevance.flatten(1).sum(1)
    assert bool((total <= 1 + 1e-6).all())
    assert bool((total > 0.01).all())


def test_recurrent_layers_are_refused_by_name() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.head = nn.LSTM(12, 5, batch_first=True), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rows(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])

    net = Recurrent().double().eval().requires_grad_(False)
    with pytest.raises(UnsupportedOp, match=r"'torch.lstm' at 'rows' \(LSTM\) has no rule"):
        LRP(net, pixels(4), TARGET)
