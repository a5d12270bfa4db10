"""Batch norms are folded where that is the same function, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine.folding import folded
from trompe.types import heatmap
from trompe.zoo.efficientnet_lite0 import efficientnet_lite0
from trompe.zoo.resnet20 import resnet20


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._NormBase) for module in model.modules())


def mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=nets.CLASSES)


def second_derivative(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of a smoothed model, and the derivative of a number made of them."""
    x = x.clone().requires_grad_(True)
    surrogate = trompe.smooth(model, beta=5.0, pooling=True)
    target = torch.zeros(len(x), dtype=torch.int64)
    heat = trompe.explainer("gradient")(surrogate, x, target)
    aim = torch.linspace(0, 1, x[0, 0].numel()).view(1, *x.shape[2:]).to(x)
    (grad,) = torch.autograd.grad((heatmap(heat) - aim).square().sum(), x)
    return heat.detach(), grad


@pytest.mark.parametrize(
    ("make", "size", "count"),
    [
        (nets.normed, 8, 3),
        (lambda: efficientnet_lite0(nets.CLASSES), 32, 49),
        (resnet20, 32, 19),
        (mobilenet, 32, 52),
    ],
)
def test_the_folded_model_is_the_same_function(
    make: Callable[[], nn.Module], size: int, count: int
) -> None:
    model = nets.seeded(make().double())
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    twin = folded(model, x)
    assert norms(model) == count
    assert norms(twin) == 0
    nets.close(twin(x), model(x), 1e-10)
    for found, expected in zip(
        second_derivative(twin, x), second_derivative(model, x), strict=True
    ):
        assert expected.abs().max() > 0
        nets.close(found, expected, 1e-10)


def test_the_model_itself_is_left_as_it_is() -> None:
    model, x = nets.normed().double(), nets.images()
    before = copy.deepcopy(model.state_dict())
    tensors = [id(tensor) for tensor in model.parameters()]
    twin = folded(model, x)
    assert twin is not model
    assert [id(tensor) for tensor in model.parameters()] == tensors
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    # What is not folded shares its memory: nothing else is held twice.
    assert twin.head.weight.data_ptr() == model.head.weight.data_ptr()


def test_weights_changed_since_are_seen_however_they_changed() -> None:
    model, x = nets.normed().double(), nets.images()
    folded(model, x)
    model.conv1.weight.data.mul_(1.5)
    model.bn2.running_mean = model.bn2.running_mean + 0.5
    model.head.weight = nn.Parameter(-model.head.weight, requires_grad=False)
    twin = folded(model, x)
    assert norms(twin) == 0
    nets.close(twin(x), model(x), 1e-10)


class Twice(nets.Normed):
    """The output of the convolution is added where its batch norm's is."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x)
        h = F.relu(self.bn1(h) + h)
        h = F.relu(self.bn2(self.conv2(h)) + self.bn3(self.short(h)))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


class Again(nets.Normed):
    """A convolution that runs twice, with a batch norm after one of its runs."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.conv2(h)[..., :2, :2] + self.bn2(self.conv2(h.flip(-1)))[..., 2:, 2:])
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


class Shared(nets.Normed):
    """One batch norm after two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn2(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)) + self.bn3(self.short(h)))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


@pytest.mark.parametrize(("kind", "left"), [(Twice, 1), (Again, 2), (Shared, 2)])
def test_only_what_is_used_alone_is_folded(kind: type[nets.Normed], left: int) -> None:
    model, x = kind(), nets.images()
    nets.seeded(model.double())
    twin = folded(model, x)
    assert norms(twin) == left
    nets.close(twin(x), model(x), 1e-10)


class Tokens(nn.Module):
    """A batch norm over the places of a sequence, as long as it is wide; one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.embed = nn.Linear(24, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.stem(x).permute(0, 2, 1, 3).flatten(2)  # [B, 8, 24]
        return self.head(self.norm(self.embed(rows)).relu().mean(1))


class Flat(nn.Module):
    """A batch norm after a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(192, 8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.hidden(x.flatten(1))).relu())


@pytest.mark.parametrize(("kind", "left"), [(Tokens, 1), (Flat, 0)])
def test_a_linear_layer_takes_over_features_not_places(kind: type[nn.Module], left: int) -> None:
    model, x = nets.seeded(kind().double()), nets.images()
    twin = folded(model, x)
    assert norms(twin) == left
    nets.close(twin(x), model(x), 1e-10)


class Activated(nn.BatchNorm2d):
    """A batch norm with an activation of its own, as timm has them."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


class Penalised(nets.Normed):
    """Reads its weights beside convolving with them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.conv1.weight.square().sum()


class Looking(nets.Normed):
    """Reads an attribute that only a batch norm has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.bn1.eps


def activated() -> nn.Module:
    model = nets.Normed()
    model.bn1 = Activated(4)
    return model


def without_statistics() -> nn.Module:
    model = nets.Normed()
    model.bn1 = nn.BatchNorm2d(4, track_running_stats=False)
    return model


def parametrized() -> nn.Module:
    model = nets.Normed()
    nn.utils.parametrizations.weight_norm(model.conv1)
    return model


@pytest.mark.parametrize(
    ("make", "left"),
    [(activated, 1), (without_statistics, 1), (parametrized, 1), (Penalised, 3), (Looking, 3)],
)
def test_what_cannot_be_vouched_for_is_left(make: Callable[[], nn.Module], left: int) -> None:
    model, x = nets.seeded(make().double()), nets.images()
    twin = folded(model, x)
    assert norms(twin) == left
    nets.close(twin(x), model(x), 1e-10)


def test_a_model_with_hooks_is_left_and_folded_once_they_are_gone() -> None:
    model, x = nets.normed().double(), nets.images()
    hook = model.conv1.register_forward_hook(lambda *_: None)
    assert folded(model, x) is model
    hook.remove()
    assert norms(folded(model, x)) == 0
    anywhere = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert folded(model, x) is model
    anywhere.remove()


def test_half_precision_and_models_without_batch_norm_are_left() -> None:
    model = nets.normed().bfloat16()
    assert folded(model, nets.images().bfloat16()) is model
    plain = nets.plain()
    assert folded(plain, nets.images()) is plain
