from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trompe import load_model
from trompe.errors import ModelError, UsageError, WeightsError
from trompe.zoo import choose_device, find_record, model_names
from trompe.zoo.checkpoint import read_weights
from trompe.zoo.resnet20 import resnet20

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared is absent")


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., Path]:
    """Saves the weights of an untrained squeezenet of 7 classes, changed as asked for."""

    def make(
        change: Callable[[dict[str, Tensor]], object] = dict, name: str = "w.safetensors"
    ) -> Path:
        state = load_model("squeezenet1_1", "random", num_classes=7).model.state_dict()
        changed = change(dict(state))
        path = tmp_path / name
        if name.endswith(".safetensors"):
            save_file(changed, path)
        else:
            torch.save(changed, path)
        return path

    return make


@pytest.mark.parametrize("name", ["tiny-vgg", "tiny-resnet"])
def test_the_embedded_models(name: str) -> None:
    loaded = load_model(name)
    assert (loaded.size, loaded.resize, len(loaded.classes)) == (64, 64, 50)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.label(0) == "goldfish"


def test_random_weights_are_always_the_same_and_leave_the_global_seed_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, two = (load_model("resnet20-cifar10", "random").model for _ in range(2))
    torch.testing.assert_close(torch.rand(2), expected)
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_torchvision_records() -> None:
    assert find_record("vgg16").size == 224
    assert find_record("vgg16").resize == 256
    assert find_record("inception_v3").size == 299
    assert "googlenet" in model_names()


def test_outputs_are_counted_in_the_weights(weights: Callable[..., Path]) -> None:
    loaded = load_model("squeezenet1_1", weights(), size=48)
    assert loaded.model(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    assert loaded.classes == ()
    assert loaded.label(2) == "class 2"
    assert (loaded.size, loaded.resize) == (48, 55)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{n}": t for n, t in s.items()}},
        lambda s: {n: t.half() for n, t in s.items()},
    ],
    ids=["nested", "wrapped", "half"],
)
def test_checkpoints(weights: Callable[..., Path], change: Callable[..., object]) -> None:
    plain = load_model("squeezenet1_1", weights(), size=48).model.state_dict()
    loaded = load_model("squeezenet1_1", weights(change, "w.pth"), size=48).model.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    torch.testing.assert_close(loaded, plain, rtol=1e-2, atol=1e-3)


def test_old_densenet_names(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    save_file({"features.denseblock1.denselayer1.norm.1.weight": torch.ones(1)}, path)
    assert list(read_weights(path)) == ["features.denseblock1.denselayer1.norm1.weight"]


class Hook:
    """Something that a checkpoint must not be allowed to run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def first(state: dict[str, Tensor]) -> str:
    return next(iter(state))


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda s: {n: t for n, t in s.items() if n != first(s)}, "w.pth", "missing: features.0"),
        (lambda s: {**s, "extra": torch.ones(1)}, "w.pth", "unknown: extra"),
        (lambda s: {**s, first(s): torch.ones(2)}, "w.pth", "of another shape: features.0"),
        (lambda s: {"a": 1}, "w.pth", "no state dict"),
        (lambda s: {}, "w.pth", "no state dict"),
        (lambda s: torch.ones(1), "w.pth", "no state dict"),
        (lambda s: {"a": Hook()}, "w.pth", "safety"),
    ],
)
def test_weights_that_do_not_fit(
    weights: Callable[..., Path], change: Callable[..., object], name: str, words: str
) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        load_model("squeezenet1_1", weights(change, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(range(256)) * 9])
def test_broken_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="is broken"):
        load_model("squeezenet1_1", tmp_path / name)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        load_model("tiny-vgg", tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="folder"):
        load_model("tiny-vgg", tmp_path)
    with pytest.raises(ModelError, match="--weights"):
        load_model("resnet20-cifar10")


def test_weights_with_nan(weights: Callable[..., Path]) -> None:
    path = weights(lambda s: {**s, first(s): s[first(s)] * float("nan")})
    with pytest.raises(ModelError, match="NaN"):
        load_model("squeezenet1_1", path, size=48)


def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(ModelError, match=r"no route to host.*--weights.*--model"):
        load_model("alexnet")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operator torchvision::nms does not exist"), ImportError("undefined symbol")],
)
def test_a_torchvision_for_another_torch(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr("trompe.zoo.records.importlib", types.SimpleNamespace(import_module=broken))
    with pytest.raises(ModelError, match=r"do not fit together.*--force-reinstall"):
        load_model("vgg16")
    assert load_model("tiny-vgg").name == "tiny-vgg"  # needs no torchvision


class Output(nn.Module):
    """Returns what Hugging Face's models return."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet20(5)

    def forward(self, x: Tensor) -> types.SimpleNamespace:
        return types.SimpleNamespace(logits=self.net(x))


def test_an_output_object_with_logits_is_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(make=Output))
    loaded = load_model("mine:make", size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert loaded.model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert loaded.input_space.mean == (0.5,) * 3


def test_a_factory_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\ndef make():\n    print('made')\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    loaded = load_model("my_nets:make", size=8, classes=["a", "b", "c", "d"])
    assert loaded.label(3) == "d"
    assert sys.path == path
    assert capsys.readouterr().out == ""  # standard output is for results
    save_file(loaded.model.state_dict(), tmp_path / "w.safetensors")
    again = load_model("my_nets:make", tmp_path / "w.safetensors", size=8)
    torch.testing.assert_close(again.model.state_dict(), loaded.model.state_dict())


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(f"label {i}" for i in range(10)) + "\n")
    loaded = load_model("resnet20-cifar10", "random", classes=tmp_path / "labels.txt")
    assert loaded.label(9) == "label 9"
    with pytest.raises(UsageError, match="2 labels, the model 10 outputs"):
        load_model("resnet20-cifar10", "random", classes=["a", "b"])
    with pytest.raises(UsageError, match="cannot be read"):
        load_model("resnet20-cifar10", "random", classes=tmp_path / "none.txt")


def test_options_out_of_range() -> None:
    with pytest.raises(UsageError, match="size"):
        load_model("tiny-vgg", size=0)
    with pytest.raises(UsageError, match="num_classes"):
        load_model("tiny-vgg", num_classes=0)
    with pytest.raises(ModelError, match="unknown model 'vgg61'"):
        load_model("vgg61")
    with pytest.raises(WeightsError, match=r"of another shape.*: if yours is .* package\.module"):
        load_model("tiny-vgg", num_classes=7)


def test_weights_of_other_channels_name_the_way_out(tmp_path: Path) -> None:
    state = dict(load_model("tiny-vgg", "random").model.state_dict())
    name = next(iter(state))
    torch.save({**state, name: state[name][:, :1].clone()}, tmp_path / "grey.pt")
    with pytest.raises(WeightsError, match=r"name your code, package\.module:function"):
        load_model("tiny-vgg", tmp_path / "grey.pt")


def test_devices() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="no device"):
        choose_device("cuda:77")
    with pytest.raises(UsageError, match="unknown device"):
        choose_device("abacus")


@needs_shared
def test_resnet20_with_the_published_weights() -> None:
    from trompe.zoo.npz_images import NpzImages

    path = SHARED / "models" / "resnet20_cifar10.safetensors"
    loaded = load_model("resnet20-cifar10", path)
    data = NpzImages(SHARED / "data" / "cifar10_test.npz")
    some = [data[index] for index in range(500)]
    x = loaded.input_space.from_pixels(torch.stack([pixels for pixels, _ in some]))
    right = loaded.model(x).argmax(dim=1) == torch.tensor([label for _, label in some])
    assert float(right.float().mean()) == pytest.approx(0.81, abs=0.05)


@needs_shared
def test_squeezenet_with_half_precision_weights() -> None:
    loaded = load_model(
        "squeezenet1_1",
        SHARED / "models" / "squeezenet1_1_imagenet.safetensors",
        classes=SHARED / "data" / "imagenet_classes.txt",
    )
    from trompe.zoo.images import load_image

    photo = SHARED / "data" / "imagenet_samples" / "n01440764_tench.jpg"
    pixels = load_image(photo, size=loaded.size, resize=loaded.resize)
    x = loaded.input_space.from_pixels(pixels[None])
    assert loaded.label(int(loaded.model(x).argmax())) == "tench"


def test_far_more_pixels_than_usual_are_said_before_the_work(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model("tiny-resnet", "random", size=128)
    assert not caplog.records

    def stop(*_: object) -> None:
        raise ModelError("it would take minutes")

    monkeypatch.setattr("trompe.zoo.load.ready_model", stop)
    with pytest.raises(ModelError, match="minutes"):
        load_model("tiny-resnet", "random", size=8192)
    assert "8192 x 8192 pixels are 16384 times as many as its usual 64 x 64" in caplog.text
