"""Models of timm and Hugging Face by their names, fed as the libraries themselves feed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trompe.errors import ModelError, UsageError
from trompe.zoo import is_function, load_model
from trompe.zoo.images import load_image


def photo(path: Path) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (23, 31, 3)).astype(np.uint8)
    image = Image.fromarray(levels).resize((306, 230), Image.Resampling.BICUBIC)
    image.save(path)
    return image


def test_what_is_a_function_of_the_users() -> None:
    assert is_function("package.module:make")
    assert not any(map(is_function, ("vgg16", "timm:resnet18", "hf:a/b", "torchvision:vgg16")))


# --------------------------------------------------------------------------------------- timm


def test_timm_names_and_preprocessing_are_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(1)
    theirs = timm.create_model("test_resnet", pretrained=False).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model("timm:test_resnet", tmp_path / "w.safetensors")
    image = photo(tmp_path / "a.png")
    config = timm.data.resolve_model_data_config(theirs)
    assert config["crop_pct"] != 1  # else the test says nothing about it
    x = timm.data.create_transform(**config, is_training=False)(image)[None]
    ours = load_image(tmp_path / "a.png", how=loaded.preprocessing)[None]
    torch.testing.assert_close(loaded.input_space.from_pixels(ours), x, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), theirs(x))
    assert loaded.label(281) == "tabby, tabby cat"


def test_channels_and_classes_of_timm_are_those_of_the_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(1)
    theirs = timm.create_model("test_resnet", pretrained=False, in_chans=1, num_classes=3).eval()
    save_file(theirs.state_dict(), tmp_path / "grey.safetensors")
    loaded = load_model("timm:test_resnet", tmp_path / "grey.safetensors", mean=[0.5], std=[0.2])
    assert loaded.preprocessing.channels == 1
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), theirs(x))
    assert loaded.classes == ()


def test_timm_with_other_channels_and_classes() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    loaded = load_model(
        "timm:test_resnet", "random", mean=(0.5,) * 4, std=(0.2,) * 4, num_classes=7
    )
    assert loaded.preprocessing.channels == 4
    assert loaded.model(torch.zeros(1, 4, 64, 64)).shape == (1, 7)
    assert loaded.classes == ()


def test_timm_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(ModelError, match=r"did you mean .*resnet18"):
        load_model("timm:resnet81")

    def offline(*_: Any, **options: Any) -> None:
        assert options["pretrained"]
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"no route to host.*--weights"):
        load_model("timm:test_resnet")


@pytest.mark.parametrize("name", ["timm:resnet18", "hf:folder"])
def test_a_library_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("trompe.zoo.libraries.importlib.import_module", missing)
    with pytest.raises(ModelError, match=r"is not installed: pip install"):
        load_model(name)


def test_numbers_of_channels_must_agree() -> None:
    with pytest.raises(UsageError, match="mean"):
        load_model("tiny-vgg", "random", mean=(0.5, 0.4), std=(0.1, 0.1))
    one = load_model("tiny-vgg", "random", mean=(0.5,))  # one number goes for all channels
    assert one.input_space.mean == (0.5, 0.5, 0.5)


# ------------------------------------------------------------------------------- Hugging Face


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes an untrained ResNet with its processor to a folder, as a user would."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    def save(processor: str, channels: int = 3, **how: Any) -> Path:
        config = transformers.ResNetConfig(
            num_channels=channels,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            id2label={0: "red", 1: "green", 2: "blue"},
            label2id={"red": 0, "green": 1, "blue": 2},
        )
        torch.manual_seed(2)
        transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
        getattr(transformers, processor)(**how).save_pretrained(tmp_path / "net")
        return tmp_path / "net"

    return save


@pytest.mark.parametrize(
    ("processor", "how"),
    [
        (
            "ConvNextImageProcessor",
            {"size": {"shortest_edge": 64}, "crop_pct": 0.875, "resample": 3},
        ),
        (
            "CLIPImageProcessor",
            {
                "size": {"shortest_edge": 80},
                "crop_size": {"height": 64, "width": 64},
                "resample": 2,
            },
        ),
    ],
)
def test_hugging_face_is_fed_as_by_its_processor(
    saved: Callable[..., Path], tmp_path: Path, processor: str, how: dict[str, Any]
) -> None:
    import transformers

    folder = saved(processor, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], **how)
    loaded = load_model(f"hf:{folder}")
    image = photo(tmp_path / "a.png")
    theirs = getattr(transformers, processor).from_pretrained(folder)
    x = theirs(image, return_tensors="pt")["pixel_values"]
    ours = load_image(tmp_path / "a.png", how=loaded.preprocessing)[None]
    # torchvision interpolates on tensors there, Pillow on levels here.
    assert ours.shape == x.shape
    assert (loaded.input_space.from_pixels(ours) - x).abs().max() < 3 / 255 / 0.2
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), network(x).logits)
    assert loaded.classes == ("red", "green", "blue")


def test_hugging_face_grey(saved: Callable[..., Path]) -> None:
    folder = saved("ViTImageProcessor", channels=1, size={"height": 28, "width": 28})
    loaded = load_model(f"hf:{folder}")
    assert loaded.preprocessing.channels == 1
    assert (loaded.size, loaded.resize) == (28, 28)
    assert loaded.input_space.mean == (0.5,)
    assert loaded.model(torch.zeros(1, 1, 28, 28)).shape == (1, 3)


def test_hugging_face_weights_for_other_channels(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers

    folder = saved("ViTImageProcessor", size={"height": 28, "width": 28})
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_channels, config.num_labels = 5, 2
    own = transformers.AutoModelForImageClassification.from_config(config).eval()
    torch.save(own.state_dict(), tmp_path / "own.pt")
    loaded = load_model(f"hf:{folder}", tmp_path / "own.pt")
    assert loaded.preprocessing.channels == len(loaded.input_space.mean) == 5
    x = torch.randn(2, 5, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), own(x).logits)
    assert loaded.classes == ()  # the folder's three names are not those of two classes
    assert load_model(f"hf:{folder}").preprocessing.channels == 3


def test_hugging_face_that_cannot_be_fed(
    saved: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved("ViTImageProcessor", size={"height": 32, "width": 32})
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rescale_factor": 1 / 127.5}))
    with pytest.raises(ModelError, match=r"does not take pixels 0\.\.1"):
        load_model(f"hf:{folder}")
    file.unlink()
    loaded = load_model(f"hf:{folder}", size=32)
    assert "does not say how its images are prepared" in caplog.text
    assert loaded.input_space.mean == (0.485, 0.456, 0.406)


def test_hugging_face_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"there is no model 'hf:.*empty'.*save_pretrained"):
        load_model(f"hf:{tmp_path / 'empty'}")


def test_a_grey_network_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grey_net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential("
        "nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    plain = load_model("grey_net:make", size=28)
    assert (plain.input_space.mean, plain.input_space.std) == (
        (0.0,),
        (1.0,),
    )
    loaded = load_model("grey_net:make", size=28, mean=(0.13,), std=(0.31,))
    assert loaded.preprocessing.channels == 1
