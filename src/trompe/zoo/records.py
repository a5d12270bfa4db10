"""What is known about each model that can be loaded by name: one record per model."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trompe.errors import ModelError
from trompe.zoo.checkpoint import read_weights
from trompe.zoo.efficientnet_lite0 import efficientnet_lite0, published_weights
from trompe.zoo.libraries import hugging_face_record, timm_record
from trompe.zoo.record import ModelRecord
from trompe.zoo.resnet20 import resnet20
from trompe.zoo.tiny import tiny_resnet, tiny_vgg

_WEIGHTS = Path(__file__).parent / "weights"
_DOWNLOAD_TIMEOUT = 30.0
_CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def _tiny(name: str, build: Callable[[int], nn.Module]) -> ModelRecord:
    """One of the embedded classifiers (model cards: docs/models)."""

    def state() -> Mapping[str, Tensor]:
        return read_weights(_WEIGHTS / f"{name}.safetensors")

    def labels() -> tuple[str, ...]:
        return tuple((_WEIGHTS / "classes50.txt").read_text(encoding="utf-8").splitlines())

    def patterns() -> Mapping[str, Tensor] | None:
        file = _WEIGHTS / f"{name}-patterns.safetensors"
        return read_weights(file) if file.exists() else None

    return ModelRecord(
        name=name,
        source="embedded",
        build=build,
        outputs=50,
        size=64,
        resize=64,
        state=state,
        labels=labels,
        patterns=patterns,
    )


def _imagenet_labels() -> tuple[str, ...]:
    """The names of the 1000 classes, as torchvision's wheel holds them with every network."""
    models = torchvision_models()
    return tuple(models.get_model_weights("efficientnet_b0").DEFAULT.meta["categories"])


RECORDS: dict[str, ModelRecord] = {
    record.name: record
    for record in (
        ModelRecord(
            name="efficientnet-lite0",
            source="installed",
            build=efficientnet_lite0,
            outputs=1000,
            size=224,
            resize=256,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            interpolation="bicubic",
            state=published_weights,
            labels=_imagenet_labels,
        ),
        _tiny("tiny-vgg", tiny_vgg),
        _tiny("tiny-resnet", tiny_resnet),
        _tiny("tiny-vgg-noise", tiny_vgg),
        _tiny("tiny-vgg-robust", tiny_vgg),
        _tiny("tiny-resnet-robust", tiny_resnet),
        ModelRecord(
            name="resnet20-cifar10",
            source="a file",
            build=resnet20,
            outputs=10,
            size=32,
            resize=32,
            labels=lambda: _CIFAR10,
        ),
    )
}
"""trompe's own models, by name; torchvision's are looked up when asked for."""


def torchvision_models() -> Any:
    """The module ``torchvision.models``.

    Raises:
        ModelError: if torchvision is missing, or was built for another torch.
    """
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"torchvision cannot be imported ({error}): pip install torchvision"
        ) from error
    except Exception as error:  # a wheel for another torch fails in several ways
        reason = " ".join(str(error).split())
        raise ModelError(
            f"torch and torchvision do not fit together ({reason}): reinstall both with "
            "pip install --force-reinstall torch torchvision"
        ) from error


@contextlib.contextmanager
def _quiet_download() -> Iterator[None]:
    """Keep torch.hub's announcements off standard output, and do not wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision(name: str) -> ModelRecord:
    """The record of one of torchvision's classifiers."""
    models = torchvision_models()
    family = models.get_model_weights(name)
    # The first weights published are those that the literature means by the network's name.
    weights = getattr(family, "IMAGENET1K_V1", family.DEFAULT)
    preset = weights.transforms()
    size = preset.crop_size[0]
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The auxiliary outputs serve training only. torchvision's weights want the input in yet
        # another normalisation, which the network then computes itself from the usual one.
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    elif name.startswith("vit_"):
        options = {"image_size": size}

    def build(outputs: int) -> nn.Module:
        model: nn.Module = models.get_model(name, weights=None, num_classes=outputs, **options)
        return model

    def state() -> Mapping[str, Tensor]:
        try:
            with _quiet_download():
                downloaded: Mapping[str, Tensor] = weights.get_state_dict(check_hash=True)
                return downloaded
        except (OSError, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"the pretrained weights of {name} cannot be downloaded ({reason}): give a file "
                "with --weights, or take --model efficientnet-lite0, which needs no download"
            ) from error

    return ModelRecord(
        name=name,
        source="torchvision",
        build=build,
        outputs=len(weights.meta["categories"]),
        size=size,
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        state=state,
        labels=lambda: tuple(weights.meta["categories"]),
    )


def model_names() -> list[str]:
    """The names of all known models: trompe's own, then torchvision's."""
    models = torchvision_models()
    return [*RECORDS, *models.list_models(module=models)]


def models() -> list[str]:
    """The names that ``trompe.load_model`` knows by itself.

    Others are ``timm:NAME``, ``hf:FOLDER`` and ``package.module:function``.

    Example:
        >>> import trompe
        >>> trompe.models()[0]
        'efficientnet-lite0'
    """
    return model_names()


def is_function(name: str) -> bool:
    """Whether a model's name stands for a function of the user's, which is imported and run."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and prefix not in ("timm", "hf", "torchvision")


def find_record(name: str, channels: int | None = None) -> ModelRecord:
    """The record of a model that is known by its name.

    Args:
        name: one of ``model_names()``, or ``timm:NAME``, ``hf:FOLDER`` or ``hf:NAME``.
        channels: of the input, where the library lets one choose.

    Raises:
        ModelError: if there is none of that name.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix == "timm":
        return timm_record(rest, channels)
    if colon and prefix == "hf":
        return hugging_face_record(rest, channels)
    plain = name.removeprefix("torchvision:")
    if plain == name and name in RECORDS:
        return RECORDS[name]
    if plain in torchvision_models().list_models(module=torchvision_models()):
        return _torchvision(plain)
    close = difflib.get_close_matches(plain, model_names(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "'trompe models' lists the names;"
    raise ModelError(
        f"unknown model '{name}': {hint} others are timm:NAME, hf:FOLDER and "
        "package.module:function"
    )
