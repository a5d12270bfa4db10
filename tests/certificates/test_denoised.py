"""Denoised smoothing, and certificates from noise that go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.zoo.denoiser import Denoiser, denoiser

SPACE = trompe.InputSpace(mean=(0.2, 0.5, 0.4), std=(0.5, 0.25, 0.125))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """A denoiser whose strength depends on the noise."""
    mean = nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1)
    return pixels + 2 * sigma * (mean - pixels)


def certify(model: nn.Module, x: Tensor, **options: Any) -> Any:
    settings = {"explainer": "gradient", "sigma": 0.2, "samples": 300, "pool": 2} | options
    return trompe.certify(
        model, x, method="noise", radius=[0.05, 0.1], input_space=SPACE, **settings
    )


def same(one: Any, other: Any) -> None:
    for name in ("pcc", "heatmap_l1", "members", "votes", "label", "label_radius", "standardised"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_label_and_map_are_those_of_the_pair() -> None:
    net, x = network(), torch.randn(2, 3, 8, 8).double()
    gradient = trompe.explainer("gradient")

    class Pair(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = net(SPACE.from_pixels(blurred(SPACE.to_pixels(z), 0.2)))
            return out

    def explained(model: nn.Module, z: Tensor, target: Tensor) -> Tensor:
        return gradient(net, SPACE.from_pixels(blurred(SPACE.to_pixels(z), 0.2)), target)

    target = net(x).argmax(1)
    found = certify(net, x, denoiser=blurred, target=target)
    same(found, certify(Pair(), x, explainer=explained, target=target))
    assert not torch.equal(found.pcc, certify(net, x, target=target).pcc)


def test_the_own_denoiser_takes_noise_away() -> None:
    clean = torch.nn.functional.interpolate(
        torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)), size=42, mode="bicubic"
    ).clamp(0, 1)
    for sigma in (0.05, 0.25):
        noise = sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        left = denoiser()(clean + noise, sigma) - clean
        assert left.shape == clean.shape
        assert float(left.square().mean()) < 0.35 * sigma**2
    per_image = denoiser()(clean[:2] + noise[:2], torch.tensor([0.05, 0.25]))
    assert torch.allclose(per_image[1], denoiser()(clean[1:2] + noise[1:2], 0.25)[0], atol=1e-5)


def test_the_denoiser_refuses_noise_it_has_not_seen_and_needs_pixels() -> None:
    net, x = network(), torch.randn(1, 3, 8, 8).double()
    with pytest.raises(UsageError, match=r"up to 0\.25"):
        certify(net, x, denoiser=True, sigma=0.3)
    with pytest.raises(UsageError, match="input_space"):
        trompe.certify(net, x, method="noise", radius=0.1, denoiser=True)


def test_any_size_of_image_is_denoised() -> None:
    torch.manual_seed(0)
    assert Denoiser()(torch.rand(1, 3, 13, 22), 0.1).shape == (1, 3, 13, 22)


class Stopped(Exception):
    """What ends a run half way."""


@pytest.mark.parametrize("samples", [1500, "auto"])
@pytest.mark.parametrize("stop", [60, 700, 1500, 1700])
def test_it_goes_on_where_it_stopped(tmp_path: Path, stop: int, samples: Any) -> None:
    net, x = network(), torch.randn(2, 3, 8, 8).double()
    settings = {"samples": samples, "wanted": 1.0 if samples == 1500 else 0.97, "batch_size": 20}
    whole = certify(net, x, **settings)
    made: list[int] = []

    def watch(done: int, total: int, measures: Any) -> None:
        made.append(done)
        if done >= stop:
            raise Stopped

    with pytest.raises(Stopped):
        certify(net, x, **settings, checkpoint=tmp_path, progress=watch)
    again: list[int] = []
    found = certify(
        net, x, **settings, checkpoint=tmp_path, progress=lambda done, total, _: again.append(done)
    )
    same(found, whole)
    assert found.samples == whole.samples
    if stop > 300:
        assert len(again) < len(made) + (2 * sum(whole.samples)) // 20  # not all of it again
        assert again[0] > 20
    ready: list[int] = []
    same(
        certify(net, x, **settings, checkpoint=tmp_path, progress=lambda d, t, _: ready.append(d)),
        whole,
    )
    assert len(ready) <= 4  # nothing is drawn again


def test_samples_of_something_else_are_refused(tmp_path: Path) -> None:
    net, x = network(), torch.randn(1, 3, 8, 8).double()
    certify(net, x, checkpoint=tmp_path)
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    for model, image, options in (
        (net, x + 0.1, {}),
        (other, x, {}),
        (net, x, {"sigma": 0.21}),
        (net, x, {"explainer": "grad_times_input"}),
        (net, x, {"denoiser": blurred}),
    ):
        with pytest.raises(UsageError, match="another image, model or setting"):
            certify(model, image, checkpoint=tmp_path, **options)
    (tmp_path / "image-0.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be read"):
        certify(net, x, checkpoint=tmp_path)
