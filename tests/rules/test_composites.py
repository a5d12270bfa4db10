"""The composites agree with zennit's, on plain networks and on those it has canonisers for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.rules.composites import COMPOSITES, Composite, composite_names
from trompe.rules.epsilon import Epsilon
from trompe.rules.norm import Addition

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from families import images, settle

zennit = pytest.importorskip("zennit")
from zennit import composites as theirs  # noqa: E402
from zennit.attribution import Gradient  # noqa: E402
from zennit.torchvision import ResNetCanonizer, VGGCanonizer  # noqa: E402

SPACE = trompe.InputSpace()


def box(**options: Any) -> Any:
    low, high = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (SPACE.low, SPACE.high)
    )
    return theirs.EpsilonGammaBox(low, high, **options)


THEIRS: dict[str, Callable[..., Any]] = {
    "epsilon_plus": theirs.EpsilonPlus,
    "epsilon_plus_flat": theirs.EpsilonPlusFlat,
    "epsilon_gamma_box": box,
    "alpha2_beta1_flat": theirs.EpsilonAlpha2Beta1Flat,
    "epsilon_alpha2_beta1": theirs.EpsilonAlpha2Beta1,
    "epsilon": lambda **options: theirs.LayerMapComposite(
        [*theirs.layer_map_base(), (zennit.types.Linear, zennit.rules.Epsilon())], **options
    ),
}


def plain() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Conv2d(6, 8, 1, bias=False), nn.Flatten()),
        *(nn.Linear(8 * 9, 10), nn.ReLU(), nn.Linear(10, 5)),
    )


def signed() -> nn.Module:
    """Activations of either sign reach the layers."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.3), nn.Conv2d(6, 6, 3), nn.GELU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 49, 10), nn.SiLU(), nn.Linear(10, 5)),
    )


def vgg_bn() -> nn.Module:
    features = tv.vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    head = (nn.Linear(32, 16), nn.ReLU(True), nn.Linear(16, 5))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


def basic() -> nn.Module:
    return tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


def bottleneck() -> nn.Module:
    net = tv.ResNet(tv.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=16)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], Any, int]] = {
    "plain": (plain, None, 16),
    "signed": (signed, None, 16),
    "vgg_bn": (vgg_bn, VGGCanonizer, 16),
    "basic": (basic, ResNetCanonizer, 32),
    "bottleneck": (bottleneck, ResNetCanonizer, 32),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "bottleneck" else ()) for n in NETS],
)
@pytest.mark.parametrize("composite", THEIRS)
def test_agrees_with_zennit(composite: str, name: str) -> None:
    make, canoniser, size = NETS[name]
    torch.manual_seed(0)
    net, x = settle(make(), size), images(size).clamp(-1.8, 2.2)  # within the box of z_B
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12  # zennit 0.5.1 folds a batch norm, but leaves its eps behind
    target = torch.tensor([1, 3])
    ours = trompe.explainer("lrp", composite=composite)(net, x, target)
    canonisers = [] if canoniser is None else [canoniser()]
    with Gradient(net.requires_grad_(True), THEIRS[composite](canonizers=canonisers)) as attribute:
        seed = trompe.explain.base.one_hot(net(x).detach(), target)
        _, expected = attribute(x.clone(), seed)
    scale = expected.abs().max()
    torch.testing.assert_close(ours / scale, expected / scale, rtol=1e-5, atol=1e-5)


ODD: dict[str, Callable[[], list[nn.Module]]] = {
    "groups": lambda: [
        *(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2, dilation=2)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)),
    ],
    "strides": lambda: [
        *(nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), nn.ReLU()),
        *(nn.Conv2d(5, 5, 3, stride=3, bias=False), nn.Hardtanh(0, 2), nn.Flatten()),
        nn.Linear(30, 5),
    ],
    "padding": lambda: [
        *(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        *(nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 196, 5)),
    ],
    "pooling first": lambda: [
        *(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Tanh()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 5)),
    ],
    "transposed": lambda: [
        *(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3, stride=2)),
        *(nn.SiLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(484, 5)),
    ],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("composite", THEIRS)
def test_odd_layers_agree_with_zennit_to_rounding(composite: str, name: str) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(*ODD[name]()).double().eval(), images(12).clamp(-1.8, 2.2)
    target = torch.tensor([0, 3])
    ours = trompe.explainer("lrp", composite=composite)(net, x, target).detach()
    with Gradient(net, THEIRS[composite]()) as attribute:
        seed = trompe.explain.base.one_hot(net(x).detach(), target)
        _, expected = attribute(x.clone(), seed)
    scale = expected.abs().max()
    torch.testing.assert_close(ours / scale, expected / scale, rtol=0, atol=1e-9)


def test_paper_is_the_default_and_unknown_names_are_refused() -> None:
    assert trompe.explainer("lrp") == trompe.explainer("lrp", composite="paper")
    with pytest.raises(UsageError, match="epsilon_plus_flat"):
        trompe.explainer("lrp", composite="nothing")
    assert composite_names()[0] == "paper"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, 8, 3, padding=1, bias=False) for n in (3, 8))
        self.last = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x)) + x
        return self.last(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("composite", [*COMPOSITES, "paper"])
def test_conserves_relevance_without_biases(composite: str) -> None:
    torch.manual_seed(1)
    net, x = Residual().double(), images(6)
    target = torch.tensor([0, 2])
    scores = net(x)[torch.arange(2), target]
    total = trompe.explainer("lrp", composite=composite)(net, x, target).sum(dim=(1, 2, 3))
    torch.testing.assert_close(total, scores, rtol=1e-3, atol=1e-6)


def test_equal_shares_of_a_sum() -> None:
    torch.manual_seed(1)
    net, x, target = Residual().double(), images(6), torch.tensor([0, 2])
    equal = Composite(Epsilon(), Epsilon(), addition=Addition("equal"))
    one, other = (trompe.explainer("lrp", composite=c)(net, x, target) for c in (equal, "epsilon"))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(
        one.sum(dim=(1, 2, 3)), other.sum(dim=(1, 2, 3)), rtol=1e-3, atol=1e-5
    )
