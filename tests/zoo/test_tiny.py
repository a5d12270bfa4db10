"""Tests of the two embedded classifiers and their shipped weights."""

from __future__ import annotations

import importlib.util
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from trompe.zoo import tiny

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(tiny.__file__).parent / "weights"
VAL = ROOT.parent / "shared" / "data" / "tiny_imagenet50_val.npz"
BUILDERS = {
    "tiny-vgg": tiny.tiny_vgg,
    "tiny-resnet": tiny.tiny_resnet,
    "tiny-vgg-noise": tiny.tiny_vgg,
    "tiny-vgg-robust": tiny.tiny_vgg,
    "tiny-resnet-robust": tiny.tiny_resnet,
}
PLAIN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear, nn.Dropout)


def shipped(name: str) -> nn.Module:
    model = BUILDERS[name]()
    model.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"), strict=True)
    return model.eval()


def training_script() -> ModuleType:
    path = ROOT / "scripts" / "train_tiny.py"
    if not path.exists():
        pytest.skip("scripts/ is not part of this installation")
    spec = importlib.util.spec_from_file_location("train_tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained_as(name: str) -> str:
    """The architecture that the training script knows a shipped network by."""
    return name.removesuffix("-noise").removesuffix("-robust")


def first_images(count: int) -> tuple[Tensor, Tensor]:
    with np.load(VAL, allow_pickle=False) as data:
        jpeg, offsets, labels = data["jpeg"], data["offsets"], data["label"]
    pixels = [
        np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB"))
        for a, b in itertools.pairwise(offsets[: count + 1])
    ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / std, torch.from_numpy(labels[:count])


@pytest.mark.parametrize("name", sorted(BUILDERS))
@pytest.mark.parametrize("classes", [50, 7])
def test_an_untrained_model_gives_one_finite_score_per_class(name: str, classes: int) -> None:
    scores = BUILDERS[name](classes).eval()(torch.rand(2, 3, 64, 64))
    assert scores.shape == (2, classes)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_shipped_weights_load_strictly_and_give_finite_scores(name: str) -> None:
    scores = shipped(name)(torch.randn(2, 3, 64, 64))
    assert scores.shape == (2, 50)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_shipped_files_are_small_float32_and_say_what_they_are(name: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= 5_000_000
    floats = {tensor.dtype for tensor in load_file(path).values() if tensor.is_floating_point()}
    assert floats == {torch.float32}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == name
    assert float(metadata["top1"]) >= 0.55
    assert metadata["recipe"]


def test_there_is_one_distinct_label_per_class() -> None:
    labels = (WEIGHTS / "classes50.txt").read_text(encoding="utf-8").splitlines()
    assert len(labels) == len(set(labels)) == 50
    assert all(labels)


def test_tiny_vgg_contains_only_plain_layers() -> None:
    model = tiny.tiny_vgg()
    leaves = [module for module in model.modules() if not list(module.children())]
    assert all(isinstance(leaf, PLAIN) for leaf in leaves)
    assert isinstance(model.features, nn.Sequential)
    assert isinstance(model.classifier, nn.Sequential)
    convs = [leaf for leaf in leaves if isinstance(leaf, nn.Conv2d)]
    assert all(conv.kernel_size == (3, 3) and conv.bias is not None for conv in convs)
    assert not any(leaf.inplace for leaf in leaves if isinstance(leaf, nn.ReLU))


def test_tiny_resnet_keeps_batch_norm_and_torchvision_names() -> None:
    model = tiny.tiny_resnet()
    names = [name for name, _ in model.named_children()]
    assert names[:3] == ["conv1", "bn1", "relu"]
    assert names[-2:] == ["avgpool", "fc"]
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_folding_the_batch_norms_leaves_the_outputs_unchanged() -> None:
    script = training_script()
    torch.manual_seed(0)
    model = script.training_model("tiny-vgg", 5)
    batch = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(3):
            model.train()(batch)
        folded = script.exported_model("tiny-vgg", model, 5)
        expected = model.eval()(batch)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_training_can_start_from_a_shipped_file(name: str) -> None:
    script = training_script()
    model = script.training_model(trained_as(name), 50)
    images = torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8)
    recipe = script.load_exported(trained_as(name), model, WEIGHTS / f"{name}.safetensors", images)
    assert "seed 0" in recipe
    batch = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch), shipped(name)(batch), atol=1e-3, rtol=1e-3)


def test_the_training_script_reads_an_image_folder(tmp_path: Path) -> None:
    script = training_script()
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(2):
            pixels = generator.integers(0, 256, (40, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    images, labels = script.read_data(tmp_path)
    assert images.shape == (4, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "builder", [lambda s: s.augment, lambda s: s.erase], ids=["shift", "erase"]
)
def test_augmentation_keeps_the_shape_and_is_seeded(
    builder: Callable[[ModuleType], Callable[..., Tensor]],
) -> None:
    change = builder(training_script())
    batch = torch.randint(0, 256, (4, 3, 64, 64)).float()
    first = change(batch, 8, torch.Generator().manual_seed(1))
    again = change(batch, 8, torch.Generator().manual_seed(1))
    assert first.shape == batch.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, batch)


@pytest.mark.skipif(not VAL.exists(), reason="the validation images (../shared) are absent")
def test_training_with_noise_keeps_the_class_under_noise() -> None:
    images, labels = first_images(250)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    noise = 0.25 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) / std
    with torch.no_grad():
        correct = {
            name: float((shipped(name)(images + noise).argmax(dim=1) == labels).float().mean())
            for name in ("tiny-vgg", "tiny-vgg-noise")
        }
    assert correct["tiny-vgg-noise"] >= 0.5
    assert correct["tiny-vgg"] <= 0.15


def test_the_noise_of_training_has_the_size_that_was_drawn() -> None:
    script = training_script()
    batch = torch.zeros(64, 3, 32, 32)
    noisy = script.noisy(batch, 0.25, torch.Generator().manual_seed(0))
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    sizes = (noisy * std).flatten(1).std(dim=1)
    assert float(sizes.max()) < 0.27
    assert float(sizes.min()) < 0.03
    assert 0.09 < float(sizes.mean()) < 0.16


@pytest.mark.skipif(not VAL.exists(), reason="the validation images (../shared) are absent")
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_the_shipped_models_classify_validation_images(name: str) -> None:
    images, labels = first_images(250)
    with torch.no_grad():
        correct = (shipped(name)(images).argmax(dim=1) == labels).float().mean()
    assert correct >= 0.55
