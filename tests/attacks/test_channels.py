"""What happens to an image on its way: against Pillow, derivatives, and what every channel owes."""

from __future__ import annotations

import io
import sys

import nets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import trompe
from trompe.attacks import Channel, channels
from trompe.attacks.channels import Jpeg, Noise, Resize, Rounding
from trompe.attacks.channels.jpeg import quantisation
from trompe.errors import UsageError
from trompe.types import InputSpace
from trompe.zoo.images import default_images, save_png

SPACE = InputSpace()
PHOTOS = torch.stack(list(default_images(96).values()))
X = SPACE.from_pixels(PHOTOS)
MADE: dict[str, Channel] = {
    "identity": channels["identity"](),
    "rounding": Rounding(16),
    "jpeg": Jpeg(75),
    "resize": Resize(0.7),
    "noise": Noise(0.03),
}
each = pytest.mark.parametrize("name", sorted(MADE))


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def levels(x: Tensor) -> Tensor:
    """Pixel values 0..255."""
    return SPACE.to_pixels(x) * 255


def test_every_channel_is_tested_here() -> None:
    assert set(MADE) == set(channels.names())


@each
def test_images_keep_their_shape_and_nothing_of_the_caller_changes(name: str) -> None:
    channel, x = MADE[name], X.clone()
    for out in (channel(x, SPACE, drawn()), channel.real(x, SPACE, drawn())):
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert bool(torch.isfinite(out).all())
        pixels = SPACE.to_pixels(out)
        assert float(pixels.min()) >= -1e-5
        assert float(pixels.max()) <= 1 + 1e-5
        if name != "identity":
            assert float((out - x).abs().max()) > 0.01
    assert torch.equal(x, X)
    assert not channel.real(x.requires_grad_(True), SPACE, drawn()).requires_grad
    double = channel(X.double(), SPACE, drawn())
    assert double.dtype == torch.float64


@each
def test_a_batch_is_its_images(name: str) -> None:
    channel = MADE[name]
    if channel.random:  # of one shape, the same draws
        first, second = (channel(X, SPACE, drawn()) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, channel(X, SPACE, torch.Generator().manual_seed(4)))
        return
    for out in (channel, channel.real):
        together = out(X, SPACE)
        for i in range(len(X)):
            torch.testing.assert_close(out(X[i : i + 1], SPACE)[0], together[i])


@each
def test_the_derivative_is_that_of_finite_differences_or_of_the_stand_in(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = MADE[name]
    x = X[:1, :, :32, :32].double() * 0.9 + 0.01
    x.requires_grad_(True)
    weight, along = torch.randn(2, *x.shape, generator=drawn(), dtype=torch.float64)
    (grad,) = torch.autograd.grad((channel(x, SPACE, drawn()) * weight).sum(), x)
    if name == "jpeg":  # as if it held no whole numbers beside the coefficients
        module = sys.modules[Jpeg.__module__]
        monkeypatch.setattr(module, "_whole", lambda levels: levels)
        monkeypatch.setattr(
            module, "_halved", lambda plane: torch.nn.functional.avg_pool2d(plane, 2)
        )
        (smooth,) = torch.autograd.grad((channel(x, SPACE) * weight).sum(), x)
        assert (
            float(torch.nn.functional.cosine_similarity(grad.flatten(), smooth.flatten(), 0)) > 0.9
        )
        grad = smooth
    if name == "rounding":  # straight through
        torch.testing.assert_close(grad, weight)
        return
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (channel(x + s * step * along, SPACE, drawn()) for s in (1, -1))
    expected = float(((ahead - behind) * weight).sum()) / (2 * step)
    assert float((grad * along).sum()) == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize("count", [256, 16])
def test_rounding_is_the_grid_of_levels(count: int) -> None:
    out = SPACE.to_pixels(Rounding(count)(X.double(), SPACE)) * (count - 1)
    torch.testing.assert_close(out, out.round(), atol=1e-9, rtol=0)
    away = out - SPACE.to_pixels(X.double()) * (count - 1)
    assert float(away.abs().max()) <= 0.5 + 1e-9


def test_rounding_is_what_a_png_does(tmp_path: object) -> None:
    x = X[:1] + 0.003
    path = f"{tmp_path}/photo.png"
    save_png(path, SPACE.to_pixels(x)[0])
    stored = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float()
    torch.testing.assert_close(levels(Rounding().real(x, SPACE))[0], stored, atol=1e-3, rtol=0)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_quantisation_tables_are_those_of_the_library(quality: int) -> None:
    """As Pillow reads them back from a file that it wrote."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format="JPEG", quality=quality)
    with Image.open(stream) as picture:
        tables = picture.quantization  # type: ignore[attr-defined]
    for index in range(2):
        assert list(quantisation(quality, index == 1)) == list(tables[index])


@pytest.mark.parametrize("quality", [50, 60, 75, 90, 95])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_jpeg_is_close_to_pillows(quality: int, subsampling: str) -> None:
    """Within 2 levels on average, and far closer than the image itself is."""
    channel = Jpeg(quality, subsampling)  # type: ignore[arg-type]
    ours, theirs = levels(channel(X, SPACE)), levels(channel.real(X, SPACE))
    error = (ours - theirs).abs().mean(dim=(1, 2, 3))
    loss = (levels(X) - theirs).abs().mean(dim=(1, 2, 3))
    assert float(error.max()) < 2
    assert bool((error < 0.6 * loss).all())


def test_jpeg_with_true_rounding_is_pillows_to_a_part_of_a_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left is the arithmetic of whole numbers; every part but the stand-in is checked."""
    module = sys.modules[Jpeg.__module__]
    monkeypatch.setattr(module, "_rounded", torch.round)
    for quality, subsampling in ((50, "4:2:0"), (75, "4:2:0"), (90, "4:2:0"), (75, "4:4:4")):
        channel = Jpeg(quality, subsampling)  # type: ignore[arg-type]
        ours, theirs = levels(channel(X, SPACE)), levels(channel.real(X, SPACE))
        assert float((ours - theirs).abs().mean()) < 0.4, (quality, subsampling)


@pytest.mark.parametrize("size", [(83, 71), (16, 9), (7, 5), (1, 1)])
def test_jpeg_of_any_size_and_of_grey_images(size: tuple[int, int]) -> None:
    x = X[..., : size[0], : size[1]]
    grey = InputSpace((0.4,), (0.3,))
    for image, space in ((x, SPACE), (grey.from_pixels(SPACE.to_pixels(x)[:, :1]), grey)):
        channel = Jpeg(75)
        ours, theirs = channel(image, space), channel.real(image, space)
        assert ours.shape == theirs.shape == image.shape
        error = (space.to_pixels(ours) - space.to_pixels(theirs)).abs().mean() * 255
        assert float(error) < 2


def test_jpeg_again_changes_little() -> None:
    once = Jpeg(75).real(X, SPACE)
    twice = Jpeg(75).real(once, SPACE)
    first, second = ((a - b).abs().mean() for a, b in ((once, X), (twice, once)))
    assert float(second) < 0.25 * float(first)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3])
def test_resize_is_close_to_pillows(factor: float) -> None:
    channel = Resize(factor)
    error = (levels(channel(X, SPACE)) - levels(channel.real(X, SPACE))).abs()
    assert float(error.mean()) < 0.5
    assert float(error.max()) < 3
    assert channel.sides(X) == (round(96 * factor),) * 2


def test_noise_has_its_size_and_leaves_valid_images() -> None:
    grey = SPACE.from_pixels(torch.full((1, 3, 96, 96), 0.5))
    for noise, spread in ((Noise(0.03), 0.03), (Noise(0.03, uniform=True), 0.03 / 3**0.5)):
        change = SPACE.to_pixels(noise(grey, SPACE, drawn())) - 0.5
        assert float(change.std()) == pytest.approx(spread, rel=0.03)
        assert abs(float(change.mean())) < 1e-3
    white = SPACE.from_pixels(torch.ones(1, 3, 8, 8))
    assert float(SPACE.to_pixels(Noise(0.5)(white, SPACE, drawn())).max()) <= 1 + 1e-5


def test_what_does_not_fit_is_refused() -> None:
    two = InputSpace((0.5, 0.5), (0.2, 0.2))
    pair = torch.zeros(1, 2, 8, 8)
    for make, message in (
        (lambda: Jpeg(0), "quality must be within 1..100"),
        (lambda: Jpeg(75, "4:1:1"), "unknown subsampling"),  # type: ignore[arg-type]
        (lambda: Jpeg()(pair, two), "1 or 3 channels"),
        (lambda: Jpeg().real(pair, two), "1 or 3 channels"),
        (lambda: Rounding(1), "levels must be at least 2"),
        (lambda: Resize(0.0), "factor must be above 0"),
        (lambda: Noise(-0.1), "must not be negative"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


@pytest.mark.parametrize("channel", [Rounding(6), Resize(0.5)])
def test_an_attack_through_a_channel_survives_it_better(channel: Channel) -> None:
    """On a small network, judged after the real channel: nine images, three aims."""
    model = nets.plain()
    x = torch.cat([0.6 * nets.images(3, seed, torch.float32) for seed in (1, 2, 3)])
    aims = [torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    aim = torch.stack(aims).repeat_interleave(3, dim=0)
    settings = nets.one_beta(iterations=120, closeness=0.0)
    after = []
    for through in ((), (channel,)):
        result = trompe.manipulate(model, x, aim, preset=settings, through=through)
        sent = channel.real(result.x_adv, SPACE)
        heat = trompe.heatmap(trompe.explainer("gradient")(model, sent, result.target_class))
        after.append(trompe.metrics.pcc(heat, result.aim))
    assert float(after[1].mean()) > float(after[0].mean()) + 0.04
