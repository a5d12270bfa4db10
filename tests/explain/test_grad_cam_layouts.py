"""Grad-CAM where the channels stand: first, last, moved about; signals and volumes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import nets
import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

import trompe
from trompe.engine.axes import matches
from trompe.errors import UnsupportedOp, UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from families import images, settle

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
TARGET = torch.tensor([0, 3])


def by_hand(
    maps: Callable[[Tensor], Tensor],
    rest: Callable[[Tensor], Tensor],
    x: Tensor,
    channels: int,
    positive: bool = True,
) -> Tensor:
    """The class activation map from one gradient, loops over the channels, [B, *places]."""
    features = maps(x).detach().requires_grad_(True)
    score = rest(features).gather(1, TARGET.view(-1, 1)).sum()
    (gradient,) = torch.autograd.grad(score, features)
    cams = []
    for b in range(len(x)):
        cam = torch.zeros(())
        for k in range(features.shape[channels]):
            one = features[b].detach().select(channels - 1, k)
            cam = cam + gradient[b].select(channels - 1, k).mean() * one
        cams.append(cam.clamp(min=0) if positive else cam)
    modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    cam = torch.stack(cams).unsqueeze(1)
    return F.interpolate(cam, size=x.shape[2:], mode=modes[x.dim() - 2])[:, 0]


def found(net: nn.Module, x: Tensor = X, **options: object) -> Tensor:
    return trompe.explainer("grad_cam", **options)(net, x, TARGET).sum(dim=1)


class Last(nn.Module):
    """Feature maps [B, H, W, C], read in a way of one's choice."""

    def __init__(self, read: str, square: bool = False) -> None:
        super().__init__()
        width = 8 if square else 12  # as many channels as places, or not
        self.read = read
        self.body = nn.Sequential(nn.Conv2d(3, width, 2, 2), nn.GELU())
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, 4)
        self.flat = nn.Linear(width * 64, 4)
        self.wide = nn.Linear(width, width)

    def maps(self, x: Tensor) -> Tensor:
        h = self.body(x).permute(0, 2, 3, 1)
        if self.read == "raw":
            return h
        return h + F.gelu(self.wide(self.norm(h)))

    def rest(self, h: Tensor) -> Tensor:
        if self.read == "mean":
            return self.fc(h.mean((1, 2)))
        if self.read == "largest":
            return self.fc(torch.amax(h, dim=(1, 2)))
        if self.read == "tokens":
            return self.fc(h.flatten(1, 2)).mean(1)
        if self.read == "flat":
            return self.flat(h.flatten(1))
        return self.fc(h.sum(dim=(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.maps(x))


def test_channels_other_than_the_model_reads_them_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = nets.seeded(Last("mean", False)).double()
    with caplog.at_level("WARNING", "trompe"):
        found(net, channels_last=True)
        assert not caplog.records
        found(net, channels_last=False)
        found(net, channels_last=False)
    (said,) = caplog.records
    assert "channels_last=False contradicts the model" in said.message


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("read", ["mean", "largest", "flat", "raw"])
def test_channels_last(read: str, square: bool) -> None:
    net = nets.seeded(Last(read, square)).double()
    nets.close(found(net), by_hand(net.maps, net.rest, X, 3), 1e-9)
    nets.close(found(net, channels_last=True), by_hand(net.maps, net.rest, X, 3), 1e-9)
    smoothed = trompe.smooth(net, beta=3.0)
    assert bool(torch.isfinite(found(smoothed)).all())


def test_tokens_are_read_after_the_maps() -> None:
    net = nets.seeded(Last("tokens")).double()
    options = {"layer": "body"}
    nets.close(
        found(net, **options),
        by_hand(net.body, lambda h: net.rest(mixed(net, h)), X, 1),
        1e-9,
    )


def mixed(net: Last, h: Tensor) -> Tensor:
    h = h.permute(0, 2, 3, 1)
    return h + F.gelu(net.wide(net.norm(h)))


def test_a_named_layer_with_channels_last() -> None:
    net = nets.seeded(Last("mean")).double()

    def maps(x: Tensor) -> Tensor:
        return net.norm(net.body(x).permute(0, 2, 3, 1))

    def rest(h: Tensor) -> Tensor:
        return net.rest(net.body(X).permute(0, 2, 3, 1) + F.gelu(net.wide(h)))

    nets.close(found(net, layer="norm"), by_hand(maps, rest, X, 3), 1e-9)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "maxvit", "shufflenet"])
def test_torchvision(name: str) -> None:
    torch.manual_seed(0)
    split: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
    if name == "swin_t":
        net = tv.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [4, 4], num_classes=4)
        split = (
            lambda x: net.permute(net.norm(net.features(x))),
            lambda h: net.head(net.flatten(net.avgpool(h))),
        )
    elif name == "convnext_tiny":
        from torchvision.models.convnext import CNBlockConfig

        net = tv.ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=4)
        split = (net.features, lambda h: net.classifier(net.avgpool(h)))
    elif name == "maxvit":
        net = tv.MaxVit((64, 64), 8, 4, [8, 8], [1, 1], 4, 0.0, num_classes=4)

        def maxvit(x: Tensor) -> Tensor:
            x = net.stem(x)
            for block in net.blocks:
                x = block(x)
            return x

        split = (maxvit, net.classifier)
    else:
        net = tv.ShuffleNetV2([2, 2, 2], [8, 16, 16, 16, 16], num_classes=4)

        def shuffled(x: Tensor) -> Tensor:
            x = net.maxpool(net.conv1(x))
            return net.conv5(net.stage4(net.stage3(net.stage2(x))))

        split = (shuffled, lambda h: net.fc(h.mean([2, 3])))
    settle(net, 64)
    x = images(64)
    expected = by_hand(split[0], split[1], x, 1, positive=False)
    nets.close(found(net, x, positive=False), expected, 1e-9)


class Tokens(nn.Module):
    """Maps that are a row of tokens while attention and a dense layer work on them, as in Swin."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.back = back
        self.body, self.norm = nn.Conv2d(3, 12, 2, 2), nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.wide, self.fc = nn.Linear(12, 12), nn.Linear(12, 4)

    def maps(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.body(x).flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + F.gelu(self.wide(tokens))
        return tokens.view(-1, 8, 8, 12) if self.back else tokens

    def forward(self, x: Tensor) -> Tensor:
        h = self.maps(x)
        return self.fc(h.mean((1, 2)) if self.back else h.mean(1))


def test_maps_made_of_tokens() -> None:
    net = nets.seeded(Tokens(True)).double()
    expected = by_hand(net.maps, lambda h: net.fc(h.mean((1, 2))), X, 3)
    nets.close(found(net), expected, 1e-9)


def test_a_softmax_over_channels_is_no_attention() -> None:
    """As where every place votes for a class."""

    class Votes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(dim=1))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).mean((2, 3))

    net = nets.seeded(Votes()).double()
    nets.close(found(net), by_hand(net.body, lambda h: h.mean((2, 3)), X, 1), 1e-9)


def test_tokens_alone_are_no_maps() -> None:
    """Neither are the queries of attention, though they have four axes."""
    with pytest.raises(UnsupportedOp, match="no feature maps"):
        found(nets.seeded(Tokens(False)).double())


def test_what_cannot_be_told_is_asked_for() -> None:
    class Patches(nn.Module):
        """Windows by places by channels: four axes, none of them rows or columns."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x).unfold(2, 4, 4).unfold(3, 4, 4)  # [B, 6, 4, 4, 4, 4]
            return self.fc(h.flatten(4).flatten(2, 3).permute(0, 2, 3, 1).relu()).mean((1, 2))

    class Reshaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fc = nn.Linear(768, 120), nn.Linear(120, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((x * 1.0 + self.first(x.flatten(1)).view(-1, 1, 10, 12)[..., :1, :1])
                           .relu().flatten(1)[:, :120])  # fmt: skip

    long = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(1)).double()
    net = nets.seeded(Patches()).double()
    with pytest.raises(UsageError, match=r"cannot tell which axis.*channels_last=True"):
        found(net, long)
    net = nets.seeded(Reshaped()).double()
    with pytest.raises(UsageError, match=r"\(2, 3, 16, 16\).*channels_last"):
        found(net)
    assert found(net, channels_last=False).shape == (2, 16, 16)


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes(dims: int) -> None:
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    features = nn.Sequential(convolution(2, 6, 3, stride=2), nn.ReLU(), convolution(6, 5, 3))
    head = nn.Linear(5, 4)
    net = nn.Sequential(features, nn.ReLU(), Mean(), head)
    nets.seeded(net)
    net.double()
    size = (2, 2, *[13] * dims)
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).double()
    expected = by_hand(lambda v: features(v).relu(), lambda h: head(h.flatten(2).mean(2)), x, 1)
    nets.close(found(net, x), expected, 1e-9)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def test_sizes_that_an_image_can_have() -> None:
    assert matches((7, 7), (224, 224))
    assert matches((7, 14), (224, 448))
    assert matches((6, 6), (63, 64))
    assert not matches((49, 4), (224, 224))
    assert not matches((7, 7), (224, 448))


class Block(nn.Module):
    """A residual block, whose last operation is a module that other blocks have too."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, padding=1), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv(x))


class Parts(nn.Module):
    """Layers of all kinds: reused ones, ones of several outputs, tokens."""

    def __init__(self, returned: str = "maps") -> None:
        super().__init__()
        act = nn.GELU()
        self.stem, self.blocks = nn.Conv2d(3, 8, 2, 2), nn.ModuleList([Block(act), Block(act)])
        self.several, self.fc = Several(returned), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.blocks[0](self.stem(x)))

    def after(self, h: Tensor) -> Tensor:
        return self.last(self.blocks[1](h))

    def last(self, h: Tensor) -> Tensor:
        out = self.several(h)
        high, low = out.values() if isinstance(out, dict) else out
        tokens = low.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.fc(tokens.mean(1) + high.flatten(2).square().mean(2))


class Several(nn.Module):
    """Returns maps and something else."""

    def __init__(self, returned: str) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, h: Tensor) -> object:
        if self.returned == "split":
            return h.tanh(), F.avg_pool2d(h, 2)
        if self.returned == "dict":
            return {"high": h.tanh(), "low": F.avg_pool2d(h, 2)}
        return h.tanh(), h.sigmoid().mean((2, 3), keepdim=True)


def test_the_maps_are_what_the_layer_returns_also_where_its_last_module_is_shared() -> None:
    net = nets.seeded(Parts()).double()

    def first(x: Tensor) -> Tensor:
        return net.blocks[0](net.stem(x))

    def second(x: Tensor) -> Tensor:
        return net.blocks[1](first(x))

    nets.close(found(net, layer="blocks.0"), by_hand(first, net.after, X, 1), 1e-9)
    nets.close(found(net, layer="blocks.1"), by_hand(second, net.last, X, 1), 1e-9)
    # Called twice: its last maps.
    nets.close(found(net, layer="blocks.0.act"), by_hand(second, net.last, X, 1), 1e-9)

    def beside(h: Tensor) -> Tensor:
        low = second(X).sigmoid().mean((2, 3))
        tokens = low.unsqueeze(1)
        tokens = tokens + net.attention(tokens, tokens, tokens)[0]
        return net.fc(tokens.mean(1) + h.flatten(2).square().mean(2))

    only_maps = by_hand(lambda x: second(x).tanh(), beside, X, 1)
    nets.close(found(net, layer="several"), only_maps, 1e-9)


@pytest.mark.parametrize("returned", ["split", "dict"])
def test_a_layer_of_several_maps_is_refused(returned: str) -> None:
    net = nets.seeded(Parts(returned)).double()
    with pytest.raises(UsageError, match=r"layer 'several' returns 2 maps .*\(2, 8, 4, 4\)"):
        found(net, layer="several")


@pytest.mark.parametrize("channels_last", [None, True, False])
def test_what_is_computed_within_a_layer_of_tokens_is_not_its_output(
    channels_last: bool | None,
) -> None:
    net = nets.seeded(Parts("split")).double()
    with pytest.raises(UsageError, match="layer 'attention' returns no maps"):
        found(net, layer="attention", channels_last=channels_last)


def test_no_hook_is_left() -> None:
    net = nets.seeded(Parts()).double()
    found(net, layer="blocks.1")
    assert not nn.modules.module._global_forward_hooks
    assert not any(module._forward_hooks for module in net.modules())


class Mixed(nn.Module):
    """Maps [B, C, H, W] whose channels a product with a constant mixes: as many as rows."""

    def __init__(self, mix: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = mix
        self.weight, self.head = nn.Parameter(torch.randn(16, 16)), nn.Linear(16 * 256, 4)

    def maps(self, x: Tensor) -> Tensor:
        return self.mix(F.relu(torch.einsum("oc,bchw->bohw", self.weight[:, :3], x)), self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).flatten(1))


@pytest.mark.parametrize(
    "mix",
    [
        lambda h, w: torch.einsum("bchw,oc->bohw", h, w),
        lambda h, w: torch.einsum("oc, bchw -> bohw", [w, h]),
        lambda h, w: torch.einsum("kbchw->bchw", torch.stack([h, h * h])),
        lambda h, w: torch.matmul(w, h.permute(3, 0, 1, 2)).permute(1, 2, 3, 0),
        lambda h, w: (h.permute(0, 2, 3, 1) @ w.t()).permute(0, 3, 1, 2),
    ],
    ids=["einsum", "weight first", "a sum", "matmul from the left", "from the right"],
)
def test_products_that_mix_channels_tell_which_axis_they_are_on(
    mix: Callable[[Tensor, Tensor], Tensor],
) -> None:
    net = Mixed(mix).double().eval()
    try:
        maps = found(net)
    except UsageError:  # nothing tells, and nothing is guessed
        maps = found(net, channels_last=False)
    expected = by_hand(net.maps, lambda h: net.head(h.flatten(1)), X, 1)
    torch.testing.assert_close(maps, expected)


class Flat(nn.Module):
    """Convolutions that leave one row, or one slice, of places."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(channels, 4)

    def read(self, maps: Tensor) -> Tensor:
        for _ in range(maps.dim() - 2):
            maps = maps.mean(dim=2)
        return self.fc(maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.body(x))


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 6, (9, 3)), nn.ELU(), nn.Conv2d(6, 5, (1, 3)), nn.ELU()),
            (9, 20),
        ),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.ELU(), nn.Conv2d(6, 5, (4, 7)), nn.ELU()), (20, 9)),
        (
            nn.Sequential(nn.Conv3d(3, 6, 3), nn.ELU(), nn.Conv3d(6, 5, (4, 2, 2)), nn.ELU()),
            (6, 8, 9),
        ),
    ],
    ids=["a row", "a column", "a slice"],
)
@pytest.mark.parametrize("options", [{}, {"layer": "body.3"}], ids=["by default", "named"])
def test_the_last_maps_may_be_one_place_wide(
    body: nn.Sequential, size: tuple[int, ...], options: dict[str, str]
) -> None:
    net = Flat(body, 5).double().eval()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    sizes = body(x).shape[2:]
    assert min(sizes) == 1
    expected = by_hand(body, net.read, x, 1)
    torch.testing.assert_close(found(net, x, **options), expected)


def test_maps_of_one_image_at_a_time_are_not_passed_over() -> None:
    class Chunked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            parts = F.relu(self.first(x)).split(1)
            return torch.cat([self.fc(self.last(h).relu().mean((2, 3))) for h in parts])

    net = Chunked().double().eval()
    with pytest.raises(UsageError, match="one image at a time"):
        found(net)
    with pytest.raises(UsageError, match="one image at a time"):
        found(net, layer="last")


def test_it_is_said_that_a_class_is_not_read_from_a_layer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class PerClass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.ModuleList(nn.Conv2d(3, 1, 3) for _ in range(4))
            self.unused = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return torch.cat([F.softplus(conv(x)).mean((2, 3)) for conv in self.own], dim=1)

    net = PerClass().double().eval()
    with caplog.at_level("WARNING", "trompe"):
        assert found(net, layer="own.3")[1].any()
    assert "does not depend" in caplog.text
    with pytest.raises(UsageError, match="is not read from layer 'unused'"):
        found(net, layer="unused")
